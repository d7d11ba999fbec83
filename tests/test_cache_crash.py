"""Whatever happens to a writer, a reader sees whole scenes only, and none that was finished is lost."""

import errno
import itertools
import os
from pathlib import Path
from typing import Any

import pytest
import zarr
from cache_fakes import SLOTS, features_of, manifest_of, rows_of, write_cache, write_scene
from cache_faults import (
    OPERATIONS,
    SMALL_SPECS,
    Outcome,
    assert_sound,
    error_of,
    failing_disk,
    faulty_disk,
    files_of,
    operations_of,
    unfinished,
)
from cache_no_fsync import no_fsync

from cache.durable_files import disk_errors, write_all
from cache.reading import open_cache
from cache.writing import CacheWriter, open_for_writing
from schemas.errors import CacheError, DiskError

__all__ = ["no_fsync"]


def opened(root: Path) -> CacheWriter:
    return open_for_writing(root, manifest_of(SMALL_SPECS), SLOTS)


def begun(root: Path) -> CacheWriter:
    """A small cache whose first scene is made."""
    writer = opened(root)
    write_scene(writer, SLOTS[0])
    return writer


def made_absent(root: Path) -> None:
    """Forget the second scene, whatever is there of it."""
    (root / "receipts" / "scene-0002.parquet").unlink(missing_ok=True)
    for path in root.rglob("c.1.*"):
        path.unlink()


def faults(kind: str, chosen: int) -> Outcome:
    """What becomes of the operations of a writer, given the one that is chosen to go wrong."""
    full = itertools.count()

    def outcome(number: int, name: str) -> str | None:
        if kind == "killed":  # the dead tidy nothing up
            return "fail" if number >= chosen else None
        if kind == "short, then full":
            if number == chosen:
                return "short"
            return "fail" if number > chosen and name == "write" and next(full) == 0 else None
        return {"once": "fail", "interrupted": "interrupt", "short": "short"}[kind] if number == chosen else None

    return outcome


def but_the_index(root: Path) -> dict[str, bytes]:
    """All files but ``frames.parquet``, which may be behind."""
    return {name: content for name, content in files_of(root).items() if name != "frames.parquet"}


@pytest.mark.parametrize(
    ("kind", "error"),
    [("once", errno.ENOSPC), ("once", errno.EIO), ("killed", errno.EIO), ("short, then full", errno.ENOSPC)],
)
def test_a_disk_error_at_any_operation_leaves_nothing_half_written(tmp_path: Path, kind: str, error: int) -> None:
    names = operations_of(lambda: write_scene(begun(tmp_path / "counted"), SLOTS[1]))
    assert set(OPERATIONS) == set(names)
    root = tmp_path / "cache"
    writer = begun(root)
    total = len(operations_of(lambda: write_scene(writer, SLOTS[1])))
    whole = but_the_index(root)
    made_absent(root)
    absent = but_the_index(root)
    failed = 0
    for chosen in range(1, total + 1):
        with faulty_disk(faults(kind, chosen), error):
            caught = error_of(lambda: write_scene(writer, SLOTS[1]))
        if caught is not None:
            assert isinstance(caught, DiskError)
            assert isinstance(caught.__cause__, OSError)
            assert os.strerror(error) in str(caught)
            assert "GB are free there" in str(caught)
            failed += 1
        if kind == "killed":
            assert_sound(root, {"scene-0001"}, SMALL_SPECS)
        else:  # the disk obeys again, so there are no remains either: all files are there, or none
            visible = {"scene-0001"} | ({"scene-0002"} if caught is None or "frame index" in str(caught) else set())
            assert set(open_cache(root).scene_names) == visible
            assert but_the_index(root) == (whole if "scene-0002" in visible else absent)
        if kind != "killed" or chosen % 4:  # sometimes the next writer finds what the dead one left
            made_absent(root)
    assert failed > total / 3
    writer = opened(root)
    assert unfinished(root) == []
    made_absent(root)
    assert write_scene(writer, SLOTS[1])
    assert assert_sound(root, set(), SMALL_SPECS) == {"scene-0001", "scene-0002"}


def test_a_short_write_at_any_operation_changes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    writer = begun(root)
    names = operations_of(lambda: write_scene(writer, SLOTS[1]))
    whole = files_of(root)
    assert names.count("write") > 40
    for chosen in range(1, len(names) + 1):
        if names[chosen - 1] == "write":
            made_absent(root)
            with faulty_disk(faults("short", chosen)):
                assert write_scene(writer, SLOTS[1])
            assert files_of(root) == whole


def test_a_disk_that_takes_nothing_ends_the_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than being asked again for ever."""
    monkeypatch.setattr(os, "write", lambda _descriptor, _data: 0)
    with pytest.raises(OSError, match="the disk took none of the bytes written to it"):
        write_all(1, b"data")


def test_an_interrupt_at_any_operation_leaves_nothing_half_written(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    writer = begun(root)
    total = len(operations_of(lambda: write_scene(writer, SLOTS[1])))
    whole = but_the_index(root)
    made_absent(root)
    absent = but_the_index(root)
    for chosen in range(1, total + 1):
        made_absent(root)
        with faulty_disk(faults("interrupted", chosen)), pytest.raises(KeyboardInterrupt):
            write_scene(writer, SLOTS[1])
        assert but_the_index(root) in (absent, whole)
        opened(root)
        assert unfinished(root) == []


def test_a_writer_that_met_an_error_cannot_go_on(tmp_path: Path) -> None:
    """Its arrays may hold different numbers of frames."""
    writer = write_cache(tmp_path, SLOTS[:1])
    with writer.scene("scene-0002") as scene:
        scene.append(features_of(SLOTS[1], 0))
        # The fifth write is in the middle of the frame: each array takes two, payload and checksum.
        with failing_disk(lambda number, _name: number == 5, errno.ENOSPC), pytest.raises(CacheError, match="step 1"):
            scene.append(features_of(SLOTS[1], 1))
        with pytest.raises(CacheError, match="this writer has failed or has committed; begin the scene again"):
            scene.append(features_of(SLOTS[1], 1))
        with pytest.raises(CacheError, match="this writer has failed or has committed; begin the scene again"):
            scene.commit(rows_of(SLOTS[1]))


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "killed"])
def test_a_creation_that_fails_at_any_operation_is_taken_up(tmp_path: Path, lasting: bool) -> None:
    opened(tmp_path / "whole")
    whole = files_of(tmp_path / "whole")
    total = len(operations_of(lambda: opened(tmp_path / "counted")))
    for chosen in range(1, total + 1):
        root = tmp_path / str(chosen)
        with failing_disk(
            lambda number, _name, chosen=chosen: number == chosen or (lasting and number > chosen), errno.ENOSPC
        ):
            caught = error_of(lambda root=root: opened(root))
        if caught is not None:  # a folder that is there already need not be made
            assert isinstance(caught, DiskError)
            assert "No space left on device" in str(caught)
        opened(root)
        assert files_of(root) == whole


def test_an_error_is_told_with_the_place_and_the_remedy(tmp_path: Path) -> None:
    def denied() -> None:
        with disk_errors("reading it", tmp_path / "a"):
            raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "a"))

    with pytest.raises(CacheError, match=r"reading it failed: Permission denied .* mend its permissions") as caught:
        denied()
    assert isinstance(caught.value.__cause__, PermissionError)


def test_free_space_that_cannot_be_told_hides_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("shutil.disk_usage", broken)

    def full() -> None:
        with disk_errors("writing", tmp_path / "a" / "b"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(CacheError, match=r"No space left on device .* The free space there cannot be told"):
        full()


def test_no_permission_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cache(tmp_path)

    def denied(path: Path, *arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(
        CacheError, match=r"opening the cache failed: Permission denied .*zarr.json.* mend its permissions"
    ):
        open_cache(tmp_path)
    with pytest.raises(CacheError, match=r"mend its permissions, or choose another folder with CACHE="):
        open_for_writing(tmp_path, manifest_of(), SLOTS)


def test_a_writer_killed_before_its_receipt_is_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All shards and ``valid`` are in place, the receipt is not; the next writer is killed among its renames."""
    writer = write_cache(tmp_path, SLOTS[:2])
    (tmp_path / "receipts" / "scene-0002.parquet").unlink()
    assert zarr.open_group(tmp_path, mode="r")["valid"][1].tolist() == [1, 1, 1, 1, 1]
    assert assert_sound(tmp_path, set()) == {"scene-0001"}
    with writer.scene("scene-0002") as scene:
        for step in range(5):
            scene.append(features_of(SLOTS[1], step))
        monkeypatch.setattr("cache.publishing.withdraw", lambda *_: None)  # the dead tidy nothing up
        with failing_disk(lambda _number, name: name == "replace", errno.EIO), pytest.raises(CacheError):
            scene.commit(rows_of(SLOTS[1]))
    assert zarr.open_group(tmp_path, mode="r")["valid"][1].tolist() == [0, 0, 0, 0, 0]
    assert write_scene(writer, SLOTS[1])
