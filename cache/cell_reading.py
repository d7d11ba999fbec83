"""Read some BEV cells of a frame, where a distiller needs only those under objects.

An uncompressed frame lies in the file as its values do in memory, cell after cell in row-major order, so cells can be
read in place: gathered out of the mapped file where the system can do that safely, otherwise one ``pread`` for each run
of neighbours, runs joined where the gap costs less to read than a call.

**Unverified**: a checksum covers a whole frame, and part of one cannot be checked against it. Where that is not good
enough, read the frame (``ShardFile.read``) and pick the cells from it.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.remote_file import RemoteFile
from cache.shard_file import ShardFile
from schemas.errors import CacheError

MAPPED_GAP_BYTES = 64 << 10
"""Mapping the pages of a gap costs less than another request; a disk reads on about as far by itself."""
LOCAL_GAP_BYTES = 8 << 10
"""Best for windows and nearly so for scattered cells: another call costs about what the kernel copies in its time."""
REMOTE_GAP_BYTES = 1 << 20
"""A request to another machine costs far more than a call."""


@dataclass(frozen=True, eq=False)
class CellSelection:
    """Cells of a BEV grid, in row-major order, each once. Good for any frame and array on that grid.

    Attributes:
        shape: (rows, cols) of the grid.
        flat: (n,) int64, ascending: row · cols + col.
    """

    shape: tuple[int, int]
    flat: NDArray[np.int64]
    _spans: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of_mask(cls, mask: NDArray[np.bool_]) -> "CellSelection":
        """The cells where a (rows, cols) mask is True."""
        rows, cols = mask.shape
        return cls((rows, cols), np.flatnonzero(mask))

    @classmethod
    def of_cells(cls, shape: tuple[int, int], cells: NDArray[Any]) -> tuple["CellSelection", NDArray[np.int64]]:
        """(n, 2) rows and columns, in any order: the selection, and which of its cells each of them is.

        Raises:
            CacheError: a cell is outside the grid.
        """
        cells = np.asarray(cells)
        if cells.ndim != 2 or cells.shape[1] != 2 or cells.dtype.kind not in "iu":
            raise CacheError(
                f"expected BEV cells as (n, 2) integers, row and column; found {cells.dtype} {cells.shape}"
            )
        outside = ((cells < 0) | (cells >= shape)).any(axis=1)
        if outside.any():
            raise CacheError(
                f"{int(outside.sum())} of {len(cells)} BEV cells are outside the grid of {shape[0]} rows and "
                f"{shape[1]} columns, the first is {tuple(cells[outside][0].tolist())}"
            )
        flat, which = np.unique(cells[:, 0].astype(np.int64) * shape[1] + cells[:, 1], return_inverse=True)
        return cls(shape, flat), which

    def spans(self, gap: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First cells and lengths of what is read in one go: runs of neighbours, joined over at most ``gap`` cells."""
        if gap not in self._spans:
            ends = np.flatnonzero(self.flat[1:] - self.flat[:-1] > gap + 1)
            first = self.flat[np.concatenate([[0], ends + 1])] if len(self.flat) else self.flat
            last = self.flat[np.concatenate([ends, [-1]])] if len(self.flat) else self.flat
            self._spans[gap] = first, last - first + 1
        return self._spans[gap]


def read_selection(shard: ShardFile, step: int, cells: CellSelection, into: NDArray[Any]) -> None:
    """Read cells of one frame as stored, unverified (of a compressed array: verified, for all of it is decoded).

    Args:
        shard: one array of one scene, whose first two dimensions after (scene, step) are rows and columns.
        step: the frame.
        cells: of the same grid.
        into: ``(n, *shard.shape[2:])`` of the shard's dtype, C-contiguous: preallocated, for the reading is quick and
            fresh memory is not.

    Raises:
        CacheError: the file is gone or ends before the cells do.
    """
    assert shard.shape[:2] == cells.shape, (shard.array.name, cells.shape)
    assert into.shape == (len(cells.flat), *shard.shape[2:]), (shard.array.name, into.shape)
    assert into.dtype == shard.dtype, (shard.array.name, into.dtype)
    assert into.flags.c_contiguous, shard.array.name
    if shard.compressed:
        np.take(shard.read(step).reshape(-1, *shard.shape[2:]), cells.flat, axis=0, out=into)
        return
    cell_bytes = math.prod(shard.shape[2:]) * shard.dtype.itemsize
    if len(cells.flat) == 0 or _gathered(shard, step, cells, into):
        return
    gap_bytes = REMOTE_GAP_BYTES if isinstance(shard.path, RemoteFile) else LOCAL_GAP_BYTES
    first, length = cells.spans(gap_bytes // cell_bytes)
    total = int(length.sum())
    if total == len(cells.flat):
        shard.read_parts(step, first * cell_bytes, length * cell_bytes, into)
        return
    spans = np.empty((total, *shard.shape[2:]), dtype=shard.dtype)
    shard.read_parts(step, first * cell_bytes, length * cell_bytes, spans)
    begins = np.cumsum(length) - length
    span = np.searchsorted(first, cells.flat, side="right") - 1
    np.take(spans, cells.flat - first[span] + begins[span], axis=0, out=into)


def _gathered(shard: ShardFile, step: int, cells: CellSelection, into: NDArray[Any]) -> bool:
    """Whether the cells could be taken out of the mapped file."""
    mapped = shard.mapped()
    if mapped is None:
        return False
    rows = into.reshape(len(into), -1).view(np.uint8)
    first, length = cells.spans(MAPPED_GAP_BYTES // rows.shape[1])
    spans = np.stack([first, first + length - 1], axis=1)
    return mapped.gather(int(shard.offsets[step]), spans, cells.flat, rows)
