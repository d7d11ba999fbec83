"""Writers that are killed, and several at once: whole scenes only, whoever made them."""

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import zarr
from cache_fakes import SLOTS, features_of, manifest_of, rows_of, token_of, write_scene
from cache_faults import SMALL_SPECS, assert_sound, flipped, unfinished
from cache_no_fsync import no_fsync

from cache.reading import open_cache
from cache.repair import repair
from cache.verify import verify
from cache.writing import CacheWriter, SceneSlot, open_for_writing

__all__ = ["no_fsync"]

REPOSITORY = Path(__file__).resolve().parent.parent


def opened(root: Path) -> CacheWriter:
    return open_for_writing(root, manifest_of(SMALL_SPECS), SLOTS)


def run_writer(root: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, str(REPOSITORY / "tests" / "cache_writer_program.py"), str(root)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=environment)


def test_kill_9_at_random_instants(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    instants = random.Random(0)
    done: set[str] = set()
    for _ in range(4):
        with run_writer(root) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(instants.uniform(0, 0.2))
            process.kill()
        done = assert_sound(root, done)
    with run_writer(root) as process:
        assert process.wait() == 0
    assert_sound(root, {slot.name for slot in SLOTS})
    open_for_writing(root, manifest_of(), SLOTS)
    assert unfinished(root) == []
    assert zarr.open_group(root, mode="r")["valid"][:].sum() == sum(slot.length for slot in SLOTS)


def test_processes_that_write_the_same_scenes_agree(tmp_path: Path) -> None:
    """They create the cache at the same moment, too; and a reader looks on."""
    root = tmp_path / "cache"
    processes = [run_writer(root) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    seen: set[str] = set()
    while any(process.poll() is None for process in processes):
        seen = assert_sound(root, seen)
    for process in processes:
        with process:
            output, _ = process.communicate()
        assert process.returncode == 0, output
    assert assert_sound(root, {slot.name for slot in SLOTS}) == {slot.name for slot in SLOTS}
    assert unfinished(root) == []


def write_together(
    writer: CacheWriter, slot: SceneSlot, seed: int, together: threading.Barrier, committed: list[int]
) -> None:
    """Append all frames, wait for the others, commit; tell whether it was this writer that made the scene."""
    with writer.scene(slot.name) as scene:
        for step in range(slot.length):
            scene.append(features_of(slot, step, SMALL_SPECS, seed))
        together.wait()
        if scene.commit(rows_of(slot)):
            committed.append(seed)


def test_threads_that_write_the_same_scene_agree(tmp_path: Path) -> None:
    """Each with numbers of its own: what is visible is one's, wholly; and a reader looks on."""
    slot = SLOTS[1]
    for attempt in range(5):
        root = tmp_path / str(attempt)
        together = threading.Barrier(3)
        committed: list[int] = []
        threads = [
            threading.Thread(target=write_together, args=(opened(root), slot, seed, together, committed))
            for seed in (1, 2)
        ]
        for thread in threads:
            thread.start()
        together.wait()
        while any(thread.is_alive() for thread in threads):
            cache = open_cache(root)
            if cache.scene_names:
                assert any((cache.read(token_of(slot, 4), "boxes") == boxes_of(slot, 4, seed)).all() for seed in (1, 2))
        for thread in threads:
            thread.join()
        (winner,) = committed
        cache = open_cache(root)
        for step in range(slot.length):
            assert (cache.read(token_of(slot, step), "boxes") == boxes_of(slot, step, winner)).all()
        assert verify(root, lambda _: None).damages == ()


def boxes_of(slot: SceneSlot, step: int, seed: int) -> Any:
    return features_of(slot, step, SMALL_SPECS, seed)["boxes"]


def test_scenes_are_committed_and_made_again_meanwhile(tmp_path: Path) -> None:
    """Whatever the moment, a cache that is sound all the time is found so, leftovers of a commit apart."""
    slots = SLOTS[:2]
    writer = open_for_writing(tmp_path, manifest_of(SMALL_SPECS), SLOTS)
    done = threading.Event()

    def write_again_and_again() -> None:
        for seed in range(16):
            for slot in slots:
                if seed % 4 == 3:  # what repair does, and two writers of a scene that it makes room for
                    flipped(tmp_path / "boxes" / f"c.{SLOTS.index(slot)}.0.0.0", 0)
                    repair(tmp_path, verify(tmp_path, lambda _: None), lambda _: None)
                write_scene(writer, slot, seed)
        done.set()

    thread = threading.Thread(target=write_again_and_again)
    thread.start()
    while not done.is_set():
        for damage in verify(tmp_path, lambda _: None).harmful:
            assert damage.array_name == "boxes", damage
            assert damage.step == 0, damage
    thread.join()
    assert verify(tmp_path, lambda _: None).damages == ()
