"""A folder that shows itself under its name only when it is finished."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import DataError

MARK = ".unfinished"
"""Lies in a folder that a run is filling, or was filling when it was killed."""


@contextmanager
def unfinished_folder(final: Path) -> Iterator[Path]:
    """An empty folder ``<final>.partial``; renamed to ``final`` when the block ends, removed when it fails.

    It is locked while the block runs. What a killed run has left there is replaced.

    Args:
        final: does not exist, or is an empty folder.

    Raises:
        DataError: another run holds the folder, or something that no run of ours has left lies there.
    """
    folder = final.with_name(final.name + ".partial")
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, folder, final)
        _empty(folder)
        (folder / MARK).touch()
        try:
            yield folder
            (folder / MARK).unlink()
            folder.rename(final)
        except BaseException:
            shutil.rmtree(folder)
            raise
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path, final: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = folder.is_dir() and os.path.samestat(os.fstat(handle), folder.stat())
    except BlockingIOError:
        is_ours = False
    if not is_ours:
        raise DataError(f"another run is writing {final} (it holds {folder}). Wait for it, or name another folder.")


def _empty(folder: Path) -> None:
    entries = list(folder.iterdir())
    if entries and folder / MARK not in entries:
        raise DataError(
            f"{folder} is needed for unfinished work, but it holds something else (it has no {MARK}). "
            "Nothing was changed. Move it away, or name another folder for the new world."
        )
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != MARK:
            entry.unlink()
