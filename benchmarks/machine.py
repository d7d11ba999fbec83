"""What a measurement needs of the machine: processors of its own, a cold page cache, room for its data."""

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path


def command_line(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to put the data, for the time of the run; default: TMPDIR")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"timed rounds (default {rounds})")
    return parser


@contextmanager
def scratch(folder: Path | None, needed_gb: float) -> Iterator[Path]:
    """An empty folder that is removed at the end.

    Args:
        folder: where to make it; None for the system's temporary folder.
        needed_gb: room that must be free.

    Raises:
        SystemExit: there is less; says where and how to choose another place.
    """
    place = Path(tempfile.gettempdir()) if folder is None else folder
    place.mkdir(parents=True, exist_ok=True)
    free_gb = shutil.disk_usage(place).free / 1e9
    if free_gb < needed_gb:
        raise SystemExit(
            f"{place} has {free_gb:.1f} GB free, this benchmark needs {needed_gb:.1f}; choose a disk with --folder"
        )
    with tempfile.TemporaryDirectory(prefix="bev-bench-", dir=place) as made:
        yield Path(made)


def is_installed(*modules: str) -> bool:
    """Whether these can be imported; none of them is."""
    return all(find_spec(module) is not None for module in modules)


def pin(count: int) -> None:
    """Keep this process, and the threads it will start, on the first ``count`` of its processors."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def drop_page_cache(folder: Path) -> None:
    """Write every file below a folder to disk and forget its pages, so that the next read is the disk's."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def peak_resident_mb() -> float:
    """Most memory that this process has had; what ``getrusage`` tells begins with its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def fsync_tree(folder: Path) -> None:
    """Make every file and name below a folder survive a power cut."""
    for path in [folder, *folder.rglob("*")]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
