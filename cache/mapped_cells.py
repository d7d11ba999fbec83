"""Gather cells of a frame straight out of the kernel's page cache: nothing is copied but the cells.

A mapped file that fails kills the process that touches it. So the kernel is asked first to bring the pages in
(``MADV_POPULATE_READ``, Linux 5.14), which reports what fails as an error; only then are they touched. What remains is
a file cut short in that very instant, and no program of ours cuts a file that has a name.
"""

import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_MADV_POPULATE_READ = 22


def gather_mapped(
    file: Path, offset: int, spans: NDArray[np.int64], flat: NDArray[np.int64], into: NDArray[np.uint8]
) -> bool:
    """Copy rows of equal size out of a file.

    Args:
        file: on a local disk.
        offset: bytes from its start to row 0.
        spans: (m, 2) first and last row of stretches that together hold all of ``flat``.
        flat: (n,) rows to copy.
        into: (n, bytes of a row).

    Returns:
        False when it cannot be done so: no Linux, an old kernel, a file that is gone, too short or fails. Nothing has
        been copied then; reading in the ordinary way does it, or tells what is wrong.
    """
    if sys.platform != "linux":
        return False
    try:
        with _mapped(file, offset, (int(spans[-1, 1]) + 1) * into.shape[1]) as (mapped, start):
            _populate(mapped, start + spans * into.shape[1], into.shape[1])
            rows = np.frombuffer(mapped, np.uint8, offset=start).reshape(-1, into.shape[1])
            np.take(rows, flat, axis=0, out=into, mode="clip")  # in range already: checking would copy twice
            del rows  # a mapping with views on it cannot be closed
    except (OSError, ValueError):  # ValueError: the file is shorter than the mapping asked for
        return False
    return True


@contextmanager
def _mapped(file: Path, offset: int, length: int) -> Iterator[tuple[mmap.mmap, int]]:
    """A mapping of the file, and where in it the bytes asked for start."""
    start = offset % mmap.ALLOCATIONGRANULARITY
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        mapped = mmap.mmap(descriptor, start + length, offset=offset - start, prot=mmap.PROT_READ)
    finally:
        os.close(descriptor)
    with mapped:
        yield mapped, start


def _populate(mapped: mmap.mmap, spans: NDArray[np.int64], row_bytes: int) -> None:
    for first, last in spans.tolist():
        begin = first - first % mmap.PAGESIZE
        mapped.madvise(_MADV_POPULATE_READ, begin, last + row_bytes - begin)
