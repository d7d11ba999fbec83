"""Gather cells of frames straight out of the kernel's page cache: nothing is copied but the cells.

A mapped file that fails kills the process that touches it. So the kernel is asked first to bring the pages in
(``MADV_POPULATE_READ``, Linux 5.14), which reports what fails as an error; only then are they touched. What remains is
a file cut short in that very instant, and no program of ours cuts a file that has a name.
"""

import mmap
import os
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_MADV_POPULATE_READ = 22


class MappedFile:
    """A file that stays mapped as long as this object lives; a file removed meanwhile can be read on."""

    def __init__(self, mapped: mmap.mmap) -> None:
        self._mapped = mapped
        self._bytes = np.frombuffer(mapped, np.uint8)

    def gather(self, offset: int, spans: NDArray[np.int64], flat: NDArray[np.int64], into: NDArray[np.uint8]) -> bool:
        """Copy rows of equal size.

        Args:
            offset: bytes from the file's start to row 0.
            spans: (m, 2) first and last row of stretches that together hold all of ``flat``.
            flat: (n,) rows to copy.
            into: (n, bytes of a row).

        Returns:
            False when the kernel is too old, or the file fails or has been cut short. Nothing has been copied then;
            reading in the ordinary way does it, or tells what is wrong.
        """
        row_bytes = into.shape[1]
        end = offset + (int(spans[-1, 1]) + 1) * row_bytes
        if end > len(self._bytes):
            return False
        try:
            _populate(self._mapped, offset + spans * row_bytes, row_bytes)
        except OSError:
            return False
        rows = self._bytes[offset:end].reshape(-1, row_bytes)
        np.take(rows, flat, axis=0, out=into, mode="clip")  # in range already: checking would copy twice
        return True


def map_file(file: Path) -> MappedFile | None:
    """Map a file on a local disk; None where there is no Linux, and for a file that is gone or empty."""
    if sys.platform != "linux":
        return None
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return MappedFile(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ))
        finally:
            os.close(descriptor)
    except (OSError, ValueError):  # ValueError: an empty file cannot be mapped
        return None


def _populate(mapped: mmap.mmap, spans: NDArray[np.int64], row_bytes: int) -> None:
    for first, last in spans.tolist():
        begin = first - first % mmap.PAGESIZE
        mapped.madvise(_MADV_POPULATE_READ, begin, last + row_bytes - begin)
