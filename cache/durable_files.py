"""Writing files so that they are either wholly there, after a crash too, or not there at all.

Every write to a cache goes through these few functions.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import DiskError


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write everything: a single ``write`` may stop short, at 2 GiB or on a disk that is nearly full.

    Raises:
        OSError: the disk refused, or takes nothing any more without saying why.
    """
    rest = memoryview(data)
    while len(rest) > 0:
        count = os.write(descriptor, rest)
        if count == 0:
            raise OSError(errno.EIO, "the disk took none of the bytes written to it")
        rest = rest[count:]


def start_writeback(descriptor: int, offset: int, length: int) -> None:
    """Have the disk begin with bytes just written, so that the fsync at the end finds little left to do.

    Linux begins to write dirty pages when it is told that they will not be needed, and keeps them until it has.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)


def fsync_directory(folder: Path) -> None:
    """Make the names inside a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_into_place(source: Path, target: Path) -> None:
    """Give a finished, fsynced file its visible name, replacing what had it, and make the name durable."""
    source.replace(target)
    fsync_directory(target.parent)


def write_file(target: Path, data: bytes, scratch: Path) -> None:
    """Write ``data`` to ``target``: under the name ``scratch`` first, fsynced, then moved into place.

    Args:
        target: the visible name; an existing file is replaced as a whole.
        data: its content.
        scratch: an unshared name on the same file system.
    """
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    move_into_place(scratch, target)


def remove_file(path: Path) -> None:
    """Remove a file if it is there, durably."""
    if path.exists():
        path.unlink()
        fsync_directory(path.parent)


@contextmanager
def disk_errors(doing: str, path: Path) -> Iterator[None]:
    """Turn an ``OSError`` into a message for people.

    Args:
        doing: what was going on, as a gerund phrase: "writing scene-0061".
        path: the file or folder concerned.

    Raises:
        DiskError: chained from the ``OSError``.
    """
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else str(path)
        reason = error.strerror or str(error)
        raise DiskError(f"{doing} failed: {reason} ({where}). {_advice(error, path)}") from error


def _advice(error: OSError, path: Path) -> str:
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"Expected to be allowed to use {path}: mend its permissions, or choose another folder with CACHE=..."
    if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
        return f"Expected a folder, or nothing yet, at {path}: name another place with CACHE=..."
    if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
        return (
            "Expected a file system that knows flock, which keeps two writers apart: mount it so (Lustre: -o flock; "
            "NFSv3: with its lock daemon), or choose a folder on another one with CACHE=..."
        )
    return (
        f"{_free_space(path)} Nothing half-written is visible and finished scenes are untouched: "
        "mend the disk (or choose another folder with CACHE=...) and run the same command again to continue."
    )


def _free_space(path: Path) -> str:
    try:
        folder = next(folder for folder in (path, *path.parents) if folder.exists())
        free = shutil.disk_usage(folder).free
    except OSError:  # the disk that failed may not answer this either, and its first error is the one to tell
        return "The free space there cannot be told."
    return f"{free / 1e9:.2f} GB are free there."
