"""Whatever happens to a writer, a reader sees whole scenes only, and none that was finished is lost."""

import errno
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from cache_fakes import (
    SLOTS,
    SPECS,
    features_of,
    manifest_of,
    rows_of,
    token_of,
    tolerance,
    write_cache,
    write_scene,
)
from cache_no_fsync import no_fsync

from cache.durable_files import disk_errors
from cache.reading import open_cache
from cache.writing import open_for_writing
from schemas.errors import CacheError

__all__ = ["no_fsync"]

REPOSITORY = Path(__file__).resolve().parent.parent
OPERATIONS = ("open", "write", "fsync", "replace", "mkdir")


def assert_sound(root: Path, at_least: set[str]) -> set[str]:
    """Every visible scene is whole and right, and the given ones are visible."""
    cache = open_cache(root)
    for slot in SLOTS:
        if slot.name in cache.scene_names:
            for step in range(slot.length):
                for spec in SPECS:
                    exact = features_of(slot, step)[spec.name]
                    found = cache.read(token_of(slot, step), spec.name)
                    assert np.abs(found - exact).max() <= tolerance(spec, exact, "int8")
    assert at_least <= set(cache.scene_names)
    return set(cache.scene_names)


def unfinished(root: Path) -> list[Path]:
    return list((root / ".writers" / "partial").iterdir())


class FailingDisk:
    """Counts file operations under a folder, and lets chosen ones fail as a disk would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: Callable[[int, str], bool], error: int) -> None:
        self.count = 0
        self._fails = fails
        self._error = error
        for name in OPERATIONS:
            monkeypatch.setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self._fails(self.count, name):
                raise OSError(self._error, os.strerror(self._error))
            return operation(*arguments, **options)

        return counted


@contextmanager
def failing_disk(fails: Callable[[int, str], bool], error: int) -> Iterator[FailingDisk]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield FailingDisk(monkeypatch, fails, error)


def error_of(action: Callable[[], object]) -> CacheError | None:
    try:
        action()
    except CacheError as error:
        return error
    return None


def operations_of_a_scene(root: Path) -> int:
    writer = write_cache(root, SLOTS[:1])
    with failing_disk(lambda _number, _name: False, 0) as disk:
        write_scene(writer, SLOTS[1])
    return disk.count


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_disk_error_at_any_operation_leaves_nothing_half_written(tmp_path: Path, error: int, lasting: bool) -> None:
    total = operations_of_a_scene(tmp_path / "counted")
    assert total > 100
    root = tmp_path / "cache"
    writer = write_cache(root, SLOTS[:1])
    failed = 0
    for chosen in range(1 + error % 4 + 2 * lasting, total + 1, 4):

        def fails(number: int, name: str, chosen: int = chosen) -> bool:
            # A full disk still renames and removes; a broken one does nothing any more.
            may = error == errno.EIO or name in ("write", "fsync", "mkdir")
            return may and (number == chosen or (lasting and number > chosen))

        with failing_disk(fails, error):
            caught = error_of(lambda: write_scene(writer, SLOTS[1]))
        if caught is not None:
            assert isinstance(caught.__cause__, OSError)
            assert os.strerror(error) in str(caught)
            assert "GB are free there" in str(caught)
            failed += 1
        visible = assert_sound(root, {"scene-0001"})
        if "scene-0002" in visible:  # only the frame index failed, or nothing did
            (root / "receipts" / "scene-0002.parquet").unlink()
            for path in root.rglob("c.1.*"):
                path.unlink()
        # Plain Zarr readers see no remains either, if the disk still obeys.
        assert lasting or list(root.rglob("c.1.*")) == []
    assert failed > total / 10
    writer = open_for_writing(root, manifest_of(), SLOTS)
    assert unfinished(root) == []
    assert write_scene(writer, SLOTS[1])
    assert_sound(root, {"scene-0001", "scene-0002"})


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


def test_a_full_disk_while_the_cache_is_created_is_taken_up(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    for chosen in range(1, 60, 4):
        with failing_disk(lambda number, _name, chosen=chosen: number == chosen, errno.ENOSPC):
            caught = error_of(lambda: open_for_writing(root, manifest_of(), SLOTS))
        assert caught is None or "No space left on device" in str(caught)
    write_cache(root)
    assert_sound(root, {slot.name for slot in SLOTS})


def test_short_writes_are_continued(tmp_path: Path) -> None:
    write_cache(tmp_path / "whole")
    write = os.write
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[: len(data) // 2 + 1]))
        write_cache(tmp_path / "short")
    for path in sorted((tmp_path / "whole").rglob("c.*")):
        assert path.read_bytes() == (tmp_path / "short" / path.relative_to(tmp_path / "whole")).read_bytes()


def test_an_interrupt_at_any_operation_leaves_nothing_half_written(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    total = operations_of_a_scene(tmp_path / "counted")
    writer = write_cache(root, SLOTS[:1])
    for chosen in range(1, total + 1, 5):

        def interrupts(number: int, name: str, chosen: int = chosen) -> bool:
            if number == chosen:
                raise KeyboardInterrupt
            return False

        with failing_disk(interrupts, 0), pytest.raises(KeyboardInterrupt):
            write_scene(writer, SLOTS[1])
        if "scene-0002" in assert_sound(root, {"scene-0001"}):
            (root / "receipts" / "scene-0002.parquet").unlink()
        open_for_writing(root, manifest_of(), SLOTS)
        assert unfinished(root) == []


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
    """They create the cache at the same moment, too."""
    root = tmp_path / "cache"
    processes = [run_writer(root) for _ in range(2)]
    for process in processes:
        with process:
            output, _ = process.communicate()
        assert process.returncode == 0, output
    assert assert_sound(root, {slot.name for slot in SLOTS}) == {slot.name for slot in SLOTS}
    assert unfinished(root) == []
