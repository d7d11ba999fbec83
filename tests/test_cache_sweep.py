"""Sweeping what dead writers left, while others do the same."""

import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cache.scene_lock import PartialFolder, sweep


def dead_folders(parent: Path, count: int) -> None:
    for number in range(count):
        folder = parent / f"scene-{number:04}.abc"
        folder.mkdir(parents=True)
        for name in ("lock", "bev", "zz"):
            (folder / name).touch()


def test_the_dead_are_swept_and_the_living_are_not(tmp_path: Path) -> None:
    dead_folders(tmp_path, 3)
    living = PartialFolder(tmp_path, "scene-9999")
    assert sweep(tmp_path) == 3
    assert [path.name for path in tmp_path.iterdir()] == [living.path.name]
    living.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [errno.ENOENT, errno.ENOTEMPTY])
def test_a_folder_that_another_sweeper_removes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    dead_folders(tmp_path, 1)

    def overtaken(folder: Path) -> None:
        raise OSError(error, os.strerror(error), "bev")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", overtaken)
        assert sweep(tmp_path) == 0
    assert sweep(tmp_path) == 1


def test_a_disk_that_refuses_to_sweep_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead_folders(tmp_path, 1)

    def broken(folder: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(shutil, "rmtree", broken)
    with pytest.raises(OSError, match="Input/output error"):
        sweep(tmp_path)


def test_many_sweepers_at_once(tmp_path: Path) -> None:
    for _ in range(20):
        dead_folders(tmp_path, 10)
        with ThreadPoolExecutor(4) as sweepers:
            list(sweepers.map(sweep, [tmp_path] * 4))
        sweep(tmp_path)
        assert list(tmp_path.iterdir()) == []
