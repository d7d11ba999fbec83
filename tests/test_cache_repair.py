"""``repair`` drops exactly what is damaged; what is made again then is, byte for byte, what was there."""

import errno
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cache_fakes import SLOTS, features_of, manifest_of, rows_of, token_of, write_cache, write_scene
from cache_faults import SMALL_SPECS, error_of, faulty_disk, files_of, flipped, operations_of, unfinished
from cache_no_fsync import no_fsync

from cache.reading import open_cache
from cache.repair import Repair, repair
from cache.scene_lock import exclusive_lock
from cache.verify import verify
from cache.writing import CacheWriter, open_for_writing
from schemas.errors import CacheError, DiskError
from schemas.features import FeatureSpec

__all__ = ["no_fsync"]

SHARD = Path("boxes") / "c.1.0.0.0"
RECEIPT = Path("receipts") / "scene-0002.parquet"
VALID = Path("valid") / "c.1.0"


def repaired(root: Path) -> Repair:
    return repair(root, verify(root, lambda _: None), lambda _: None)


def opened(root: Path, specs: tuple[FeatureSpec, ...] = SMALL_SPECS) -> CacheWriter:
    return open_for_writing(root, manifest_of(specs), SLOTS)


def filled(root: Path, specs: tuple[FeatureSpec, ...] = SMALL_SPECS) -> Path:
    """A small cache, complete, with parameters."""
    writer = opened(root, specs)
    for slot in SLOTS:
        write_scene(writer, slot)
    writer.write_parameters({"weight": np.arange(100, dtype=np.float32)})
    return root


def make_again(root: Path, specs: tuple[FeatureSpec, ...] = SMALL_SPECS) -> None:
    """What the next ``cache-teacher`` does."""
    writer = opened(root, specs)
    for slot in SLOTS:
        if slot.name not in writer.committed():
            assert write_scene(writer, slot)
    writer.write_parameters({"weight": np.arange(100, dtype=np.float32)})


def stale(root: Path) -> None:
    """The receipt of an older writing."""
    other = root.parent / "other"
    write_scene(opened(other), SLOTS[1], seed=5)
    shutil.copy(other / RECEIPT, root / RECEIPT)


def swap_shards(root: Path) -> None:
    """Two scenes' files of one array, each sound in itself."""
    first, second = (root / "boxes" / f"c.{index}.0.0.0" for index in (0, 1))
    first.rename(root / "boxes" / "aside")
    second.rename(first)
    (root / "boxes" / "aside").rename(second)


DAMAGES: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "bit flip": (lambda root: flipped(root / SHARD, 40), ("scene-0002",)),
    "truncation": (lambda root: (root / SHARD).write_bytes((root / SHARD).read_bytes()[:50]), ("scene-0002",)),
    "deleted shard": (lambda root: (root / SHARD).unlink(), ("scene-0002",)),
    "swapped shards": (swap_shards, ("scene-0001", "scene-0002")),
    "stale receipt": (stale, ("scene-0002",)),
    "damaged receipt": (lambda root: (root / RECEIPT).write_bytes(b"PAR1"), ("scene-0002",)),
    "damaged receipt, no index": (
        lambda root: ((root / RECEIPT).write_bytes(b"PAR1"), (root / "frames.parquet").unlink()),
        ("scene-0002",),
    ),
    "wrong valid": (lambda root: flipped(root / VALID, 0), ()),
    "lost valid": (lambda root: (root / VALID).unlink(), ()),
    "damaged index": (lambda root: (root / "frames.parquet").write_bytes(b"PAR1"), ()),
    "lost index": (lambda root: (root / "frames.parquet").unlink(), ()),
    "array metadata": (lambda root: (root / "bev" / "zarr.json").write_text("{}"), ()),
    "parameters": (lambda root: flipped(root / "teacher.safetensors", -1), ()),
    "stray receipt": (lambda root: shutil.copy(root / RECEIPT, root / "receipts" / "scene-0007.parquet"), ()),
    "lost receipt": (lambda root: (root / RECEIPT).unlink(), ()),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_repaired_cache_is_filled_up_to_the_same_bytes(tmp_path: Path, kind: str) -> None:
    root = filled(tmp_path / "cache")
    before = files_of(root)
    untouched = {path: path.stat().st_ino for path in root.rglob("c.2.*")}
    damage, dropped = DAMAGES[kind]
    damage(root)
    done = repaired(root)
    assert done.dropped == dropped
    assert done.left == ()
    assert verify(root, lambda _: None).damages == ()
    absent = {*dropped, *(["scene-0002"] if kind == "lost receipt" else [])}
    assert set(open_cache(root).scene_names) == {slot.name for slot in SLOTS} - absent
    for name in absent:  # plain Zarr readers see nothing of them either
        assert list(root.rglob(f"c.{[slot.name for slot in SLOTS].index(name)}.*")) == []
    make_again(root)
    assert files_of(root) == before
    assert {path: path.stat().st_ino for path in untouched} == untouched


def test_a_lost_array_folder_is_made_again(tmp_path: Path) -> None:
    root = filled(tmp_path / "cache")
    before = files_of(root)
    shutil.rmtree(root / "bev")
    assert repaired(root).dropped == tuple(slot.name for slot in SLOTS)
    make_again(root)
    assert files_of(root) == before


def test_a_sound_cache_is_left_alone(tmp_path: Path) -> None:
    root = filled(tmp_path / "cache")
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    assert repaired(root) == Repair((), (), ())
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    root = filled(tmp_path / "cache")
    (root / "bev" / "notes.txt").write_text("mine")
    done = repaired(root)
    assert [damage.path.name for damage in done.left] == ["notes.txt"]
    assert (root / "bev" / "notes.txt").read_text() == "mine"


def test_a_scene_that_is_sound_by_now_is_not_dropped(tmp_path: Path) -> None:
    """Another machine has repaired the cache and made the scene again since it was verified."""
    root = filled(tmp_path / "cache")
    flipped(root / SHARD, 40)
    found = verify(root, lambda _: None)
    assert repair(root, found, lambda _: None).dropped == ("scene-0002",)
    make_again(root)
    seen: list[str] = []
    assert repair(root, found, seen.append).dropped == ()
    assert seen == ["scene-0002"]
    assert open_cache(root).scene_names == tuple(slot.name for slot in SLOTS)


def test_a_scene_in_flight_is_not_disturbed(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    writer = opened(root)
    with writer.scene("scene-0002") as scene:
        for step in range(5):
            scene.append(features_of(SLOTS[1], step, SMALL_SPECS))
        (root / VALID).write_bytes(b"remains")
        repaired(root)
        assert not (root / VALID).exists()
        assert scene.commit(rows_of(SLOTS[1]))
    assert verify(root, lambda _: None).damages == ()


@pytest.mark.parametrize("lock", [Path(".writers") / "scenes" / "scene-0002.lock", Path(".writers") / "index.lock"])
def test_a_scene_is_dropped_under_its_lock_and_that_of_the_index(tmp_path: Path, lock: Path) -> None:
    """A writer that commits the scene, or rewrites the rows of all, is not disturbed."""
    root = filled(tmp_path / "cache")
    flipped(root / SHARD, 40)
    dropped: list[str] = []
    thread = threading.Thread(target=lambda: dropped.extend(repaired(root).dropped))
    with exclusive_lock(root / lock):
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        assert (root / RECEIPT).exists()
        assert (root / "frames.parquet").exists()
    thread.join()
    assert dropped == ["scene-0002"]


def much_damaged(root: Path) -> None:
    """Everything that repair has to do something about."""
    flipped(root / SHARD, 40)
    flipped(root / "valid" / "c.2.0", 0)
    (root / "receipts" / "scene-0001.parquet").unlink()
    (root / "boxes" / "zarr.json").write_text("{}")
    flipped(root / "teacher.safetensors", -1)


@pytest.mark.parametrize("kind", ["once", "killed"])
def test_a_repair_that_fails_at_any_operation_is_taken_up(tmp_path: Path, kind: str) -> None:
    """A killed repair is one whose every later operation fails: the dead tidy nothing up."""
    specs = SMALL_SPECS[1:]  # one array of a few bytes: there are many repairs to come
    source = filled(tmp_path / "source", specs)
    before = files_of(source)
    much_damaged(source)
    whole = Path(shutil.copytree(source, tmp_path / "whole"))
    operations = operations_of(lambda: repaired(whole))
    assert {"open", "write", "fsync", "replace", "mkdir", "unlink"} == set(operations)
    after = files_of(whole)
    exact = features_of(SLOTS[2], 0, specs)["boxes"]
    failed = 0
    for chosen in range(1, len(operations) + 1):
        root = Path(shutil.copytree(source, tmp_path / "cache"))

        def outcome(number: int, _name: str, chosen: int = chosen) -> str | None:
            return "fail" if number == chosen or (kind == "killed" and number > chosen) else None

        with faulty_disk(outcome, (errno.ENOSPC, errno.EIO)[chosen % 2]):
            error = error_of(lambda root=root: repaired(root))
        assert error is None or (isinstance(error, DiskError) and isinstance(error.__cause__, OSError))
        failed += error is not None
        cache = open_cache(root)
        assert {"scene-0003"} <= set(cache.scene_names) <= {"scene-0002", "scene-0003"}
        assert cache.read(token_of(SLOTS[2], 0), "boxes").tobytes() == exact.tobytes()
        if "scene-0002" in cache.scene_names:
            with pytest.raises(CacheError, match="damaged"):
                cache.read(token_of(SLOTS[1], 1), "boxes")
        repaired(root)
        assert files_of(root) == after
        assert unfinished(root) == []
        shutil.rmtree(root)
    assert failed > len(operations) / 2
    make_again(whole, specs)
    assert files_of(whole) == before


def test_a_reader_meets_no_wrong_number_while_scenes_are_damaged_repaired_and_made_again(tmp_path: Path) -> None:
    """Its answers are right, for one of the writings there were, or a clear refusal."""
    root = filled(tmp_path / "cache")
    slot = SLOTS[1]
    expected = {
        step: {features_of(slot, step, SMALL_SPECS, seed)["boxes"].tobytes() for seed in range(10)} for step in range(5)
    }
    done = threading.Event()
    wrong: list[str] = []
    answers = refusals = 0

    def read_again_and_again() -> None:
        nonlocal answers, refusals
        while not done.is_set():
            try:
                cache = open_cache(root)
                for step in range(5):
                    found = cache.read(token_of(slot, step), "boxes")
                    answers += 1
                    if found.tobytes() not in expected[step]:
                        wrong.append(f"step {step}: {found}")
            except CacheError:
                refusals += 1

    thread = threading.Thread(target=read_again_and_again)
    thread.start()
    try:
        writer = opened(root)
        for seed in range(10):
            flipped(root / SHARD, 40)
            repaired(root)
            write_scene(writer, slot, seed)
    finally:
        done.set()
        thread.join()
    assert wrong == []
    assert answers > 0
    assert verify(root, lambda _: None).damages == ()
    assert open_cache(root).scene_names == tuple(slot.name for slot in SLOTS)


def test_two_repairs_at_once_agree(tmp_path: Path) -> None:
    root = filled(tmp_path / "cache")
    before = files_of(root)
    much_damaged(root)
    dropped: list[str] = []
    threads = [threading.Thread(target=lambda: dropped.extend(repaired(root).dropped)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dropped == ["scene-0002"]
    make_again(root)
    assert files_of(root) == before


def test_a_cache_of_another_tier_is_repaired(tmp_path: Path) -> None:
    writer = write_cache(tmp_path, tier="archive")
    before = files_of(tmp_path)
    flipped(tmp_path / "bev" / "c.1.0.0.0.0", 200)
    assert repaired(tmp_path).dropped == ("scene-0002",)
    assert write_scene(writer, SLOTS[1])
    assert files_of(tmp_path) == before
