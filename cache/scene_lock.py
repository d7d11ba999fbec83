"""Exclusion between writers: advisory ``flock`` on a lock file, dropped by the kernel when its holder dies.

It holds between processes of one machine on any local file system. Between machines the file system must pass
``flock`` on: NFSv4 and Lustre (mounted with ``flock``) do; NFSv3 needs its lock daemon. Where it does not, let
no two machines write the same scene: give each its own with ``--scenes``.
Lock files are never removed, because a lock on a removed file excludes nobody.
"""

import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold the lock file at ``path`` exclusively, waiting for it if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _open_lock(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing alone would not do: a forked child may hold a copy
        os.close(descriptor)


class PartialFolder:
    """Unfinished files of one scene in flight; others may sweep it once its owner is gone.

    Attributes:
        path: the folder.
    """

    def __init__(self, parent: Path, scene_name: str) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            self.path = parent / f"{scene_name}.{uuid.uuid4().hex[:12]}"
            self.path.mkdir()
            descriptor = _lock_if_free(self.path)
            if descriptor is not None:
                break
            # A sweeper came between mkdir and the lock: it removes that folder, we take another.
        self._lock_descriptor: int | None = descriptor

    def remove(self) -> None:
        """Remove the folder with whatever is left in it. Harmless when done twice."""
        if self._lock_descriptor is None:
            return
        shutil.rmtree(self.path, ignore_errors=True)  # what stays is swept later
        os.close(self._lock_descriptor)
        self._lock_descriptor = None


def sweep(parent: Path) -> int:
    """Remove the partial folders whose writers are gone.

    Returns:
        How many were removed.
    """
    removed = 0
    for folder in sorted(parent.iterdir()) if parent.is_dir() else []:
        descriptor = _lock_if_free(folder)
        if descriptor is not None:
            try:
                shutil.rmtree(folder)
                removed += 1
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                    raise
                # Another sweeper is at the same folder; what the two leave to each other is swept next time.
            finally:
                os.close(descriptor)
    return removed


def _lock_if_free(folder: Path) -> int | None:
    """Descriptor of the folder's lock, or None when another holds it or the folder has just been swept."""
    lock = folder / "lock"
    try:
        descriptor = _open_lock(lock)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == lock.stat().st_ino:  # not a lock that was swept before we got it
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
