"""Read a clip's frames of one cached array straight into preallocated memory: one system call, no copy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.shard_bytes import CHECKSUM_BYTES
from cache.shard_file import ShardFile

MAX_FRAMES_PER_CALL = 512
"""The kernel takes 1024 buffers a call; a frame needs two, its values and the checksum that follows them."""


def read_clip(shard: ShardFile, first_step: int, into: NDArray[Any], *, verify: bool) -> None:
    """Read consecutive frames.

    Uncompressed frames lie one after the other in the file, 4 checksum bytes apart, so ``preadv`` scatters them over
    the rows of ``into``. Compressed ones are read and decoded one by one, always verified.

    Args:
        shard: one array of one scene.
        first_step: the frame of the first row.
        into: ``(frames, *shard.shape)`` of the shard's dtype, C-contiguous.
        verify: compare every frame with its checksum.

    Raises:
        CacheError: a frame is missing or damaged; scene, array and step are named.
    """
    assert into.flags.c_contiguous, shard.array.name
    assert into.shape[1:] == shard.shape, shard.array.name
    for start in range(0, len(into), MAX_FRAMES_PER_CALL):
        rows = into[start : start + MAX_FRAMES_PER_CALL]
        whole = not shard.compressed and _scatter(shard, first_step + start, rows)
        for row, step in enumerate(range(first_step + start, first_step + start + len(rows))):
            if not whole:  # also after a short read: frame by frame, the damaged one is found and named
                rows[row] = shard.read(step)
            elif verify:
                shard.verify(step, rows[row].reshape(-1).view(np.uint8))


def _scatter(shard: ShardFile, first_step: int, rows: NDArray[Any]) -> bool:
    """One ``preadv`` over all rows; False when it did not bring everything."""
    stride = int(shard.nbytes[first_step]) + CHECKSUM_BYTES
    offsets = shard.offsets[first_step : first_step + len(rows)]
    assert len(offsets) == len(rows), f"{shard.path}: {len(rows)} steps from {first_step} on pass the scene's end"
    assert (np.diff(offsets) == stride).all(), f"{shard.path}: frames are not adjacent"
    spare = np.empty((len(rows), CHECKSUM_BYTES), dtype=np.uint8)
    buffers = [part for row, gap in zip(rows, spare, strict=True) for part in (row.reshape(-1).view(np.uint8), gap)]
    return shard.read_bytes(first_step, 0, buffers) == stride * len(rows)
