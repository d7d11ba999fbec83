"""Read a clip's frames of one cached array straight into preallocated memory, without a copy."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.shard_bytes import CHECKSUM_BYTES
from cache.shard_file import ShardFile

MAX_FRAMES_PER_CALL = 512
"""The kernel takes 1024 buffers a call; a frame needs two, its values and the checksum that follows them."""
LARGE_FRAME_BYTES = 1 << 20
"""Frames beyond are verified as they come, not afterwards, when they have left the processor's cache."""


def read_clip(shard: ShardFile, first_step: int, into: NDArray[Any], *, verify: bool) -> None:
    """Read consecutive frames.

    Uncompressed frames lie one after the other in the file, 4 checksum bytes apart, so one ``preadv`` (or one request,
    of a remote cache) scatters them over the rows of ``into``. Large ones that shall be verified are read one by one,
    and so are compressed ones, which are always verified.

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
    large = into[0].nbytes > LARGE_FRAME_BYTES and isinstance(shard.path, Path)
    one_by_one = shard.compressed or (verify and large)
    for start in range(0, len(into), MAX_FRAMES_PER_CALL):
        rows = into[start : start + MAX_FRAMES_PER_CALL]
        whole = not one_by_one and _scatter(shard, first_step + start, rows)
        for row, step in enumerate(range(first_step + start, first_step + start + len(rows))):
            if not whole:  # also after a short read: frame by frame, the damaged one is found and named
                shard.read_into(step, rows[row])
            elif verify:
                shard.verify(step, rows[row].reshape(-1).view(np.uint8))


def _scatter(shard: ShardFile, first_step: int, rows: NDArray[Any]) -> bool:
    """One ``preadv`` over all rows; False when it did not bring everything."""
    stride = int(shard.nbytes[first_step]) + CHECKSUM_BYTES
    last_step = first_step + len(rows) - 1
    assert last_step < shard.steps, f"{shard.path}: {len(rows)} steps from {first_step} on pass the scene's end"
    distance = int(shard.offsets[last_step] - shard.offsets[first_step])
    assert distance == stride * (len(rows) - 1), f"{shard.path}: frames are not adjacent"
    spare = np.empty((len(rows), CHECKSUM_BYTES), dtype=np.uint8)
    buffers = [part for row, gap in zip(rows, spare, strict=True) for part in (row, gap)]
    return shard.read_bytes(first_step, 0, buffers) == stride * len(rows)
