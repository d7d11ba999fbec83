"""The write queue: bounded, in order, overlapping, and nothing half-written when anything fails."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cache_fakes import SLOTS, SPECS, features_of, manifest_of, rows_of, token_of, tolerance, write_cache
from cache_no_fsync import no_fsync

from cache.reading import open_cache
from cache.scene_writer import SceneWriter
from cache.writing import CacheWriter, SceneSlot, open_for_writing
from pipeline.teacher_stage.quantise import StoredFrame, quantise
from pipeline.teacher_stage.write_queue import WriteQueue
from schemas.errors import CacheError, DiskError

__all__ = ["no_fsync"]

LONG = SLOTS[1]


def frame_of(slot: SceneSlot, step: int) -> StoredFrame:
    values = {name: torch.from_numpy(array) for name, array in features_of(slot, step).items()}
    return quantise(SPECS, values, "int8")


@pytest.fixture
def writer(tmp_path: Path) -> CacheWriter:
    return open_for_writing(tmp_path / "cache", manifest_of(), SLOTS)


@pytest.fixture
def queue() -> Iterator[WriteQueue]:
    with WriteQueue(SPECS, "int8", frames=2) as queue:
        yield queue


def append_all(queue: WriteQueue, writer: CacheWriter, slot: SceneSlot) -> None:
    with queue.scene(writer.scene(slot.name)) as scene:
        for step in range(slot.length):
            scene.append(frame_of(slot, step))
        assert scene.commit(rows_of(slot)).result()


def test_what_passed_the_queue_is_what_the_writer_stores(
    queue: WriteQueue, writer: CacheWriter, tmp_path: Path
) -> None:
    for slot in SLOTS:
        append_all(queue, writer, slot)
    write_cache(tmp_path / "direct")
    shards = sorted((tmp_path / "direct").rglob("c.*"))
    assert len(shards) == 3 * 9
    for path in shards:
        assert path.read_bytes() == (tmp_path / "cache" / path.relative_to(tmp_path / "direct")).read_bytes()
    cache = open_cache(tmp_path / "cache")
    for spec in SPECS:
        exact = features_of(LONG, 3)[spec.name]
        assert np.abs(cache.read(token_of(LONG, 3), spec.name) - exact).max() <= tolerance(spec, exact, "int8")


def test_the_forward_pass_waits_only_when_the_queue_is_full(
    queue: WriteQueue, writer: CacheWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk takes nothing until it is told to; two frames beyond the one being written fit the queue."""
    disk = threading.Event()
    stored: list[int] = []
    append_stored = SceneWriter.append_stored

    def slow(self: SceneWriter, arrays: Any) -> None:
        assert disk.wait(timeout=30)
        append_stored(self, arrays)
        stored.append(len(stored))

    monkeypatch.setattr(SceneWriter, "append_stored", slow)
    appended: list[int] = []

    def forward() -> None:
        with queue.scene(writer.scene(LONG.name)) as scene:
            for step in range(LONG.length):
                scene.append(frame_of(LONG, step))
                appended.append(step)
            scene.commit(rows_of(LONG)).result()

    thread = threading.Thread(target=forward)
    thread.start()
    while len(appended) < 2:
        threading.Event().wait(0.001)
    thread.join(timeout=0.2)
    assert appended == [0, 1], "the third append waits for the first frame to leave the queue"
    assert stored == []
    disk.set()
    thread.join(timeout=30)
    assert appended == stored == [0, 1, 2, 3, 4]


def test_the_next_scene_begins_while_one_is_committed(
    queue: WriteQueue, writer: CacheWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = threading.Event()
    commit = SceneWriter.commit

    def slow(self: SceneWriter, rows: Any) -> bool:
        assert disk.wait(timeout=30)
        return commit(self, rows)

    monkeypatch.setattr(SceneWriter, "commit", slow)
    with queue.scene(writer.scene("scene-0001")) as scene:
        for step in range(3):
            scene.append(frame_of(SLOTS[0], step))
        first = scene.commit(rows_of(SLOTS[0]))
    with queue.scene(writer.scene("scene-0003")) as scene:
        scene.append(frame_of(SLOTS[2], 0))
        assert writer.committed() == frozenset()
        disk.set()
        assert scene.commit(rows_of(SLOTS[2])).result()
    assert first.done()
    assert writer.committed() == {"scene-0001", "scene-0003"}


def broken(_self: object, _arrays: object) -> None:
    raise DiskError("the disk is gone")


def not_finite(step: int) -> StoredFrame:
    values = {name: torch.from_numpy(array) for name, array in features_of(LONG, step).items()}
    values["bev"][1, 2, 3] = float("nan")
    return quantise(SPECS, values, "int8")


@pytest.mark.parametrize("bad_step", range(LONG.length))
def test_a_frame_not_fit_to_be_stored_fails_its_scene(queue: WriteQueue, writer: CacheWriter, bad_step: int) -> None:
    def attempt() -> None:
        with queue.scene(writer.scene(LONG.name)) as scene:
            for step in range(LONG.length):
                scene.append(not_finite(step) if step == bad_step else frame_of(LONG, step))
            scene.commit(rows_of(LONG)).result()

    with pytest.raises(CacheError, match=rf"scene scene-0002, step {bad_step}: bev holds values that are NaN"):
        attempt()
    append_all(queue, writer, LONG)
    assert writer.committed() == {LONG.name}
    assert os.listdir(writer.path / ".writers" / "partial") == []  # noqa: PTH208 - names are all that matters


def test_a_refusing_disk_ends_the_scene_at_the_next_frames(
    queue: WriteQueue, writer: CacheWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SceneWriter, "append_stored", broken)
    appended: list[int] = []

    def attempt(length: int, note: Callable[[int], None]) -> None:
        with queue.scene(writer.scene(LONG.name)) as scene:
            for step in range(length):
                scene.append(frame_of(LONG, step))
                note(step)
            scene.commit(rows_of(LONG)).result()

    with pytest.raises(DiskError, match="the disk is gone"):
        attempt(LONG.length, appended.append)
    assert len(appended) <= queue.frames
    with pytest.raises(DiskError, match="the disk is gone"):
        attempt(1, appended.append)


def test_an_abandoned_scene_leaves_nothing(queue: WriteQueue, writer: CacheWriter) -> None:
    def abandoned() -> None:
        with queue.scene(writer.scene(LONG.name)) as scene:
            scene.append(frame_of(LONG, 0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        abandoned()
    assert writer.committed() == frozenset()
    assert os.listdir(writer.path / ".writers" / "partial") == []  # noqa: PTH208 - names are all that matters
