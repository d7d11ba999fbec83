"""Read a clip's frames of one cached array straight into preallocated memory, without a copy.

Large frames evict the interpreter from the processor's caches, so every call here costs several times what it costs in
a loop of its own: hence the few calls, whatever the number of frames.
"""

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
SMALL_FRAME_BYTES = 1 << 14
"""Up to here (scales, offsets, boxes) copying out of one buffer is quicker than handing the kernel many."""


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
    assert first_step + len(into) <= shard.steps, f"{shard.path}: {len(into)} steps from {first_step} on, past the end"
    frame_bytes = into.strides[0]
    if shard.compressed or (verify and frame_bytes > LARGE_FRAME_BYTES and isinstance(shard.path, Path)):
        _read_one_by_one(shard, first_step, into)
        return
    read_block = _copy_out if frame_bytes <= SMALL_FRAME_BYTES else _scatter
    for start in range(0, len(into), MAX_FRAMES_PER_CALL):
        rows = into[start : start + MAX_FRAMES_PER_CALL]
        if not read_block(shard, first_step + start, rows):
            _read_one_by_one(shard, first_step + start, rows)  # the damaged one is found and named
        elif verify:
            for row, step in zip(rows, range(first_step + start, shard.steps), strict=False):
                shard.verify(step, row.reshape(-1).view(np.uint8))


def _read_one_by_one(shard: ShardFile, first_step: int, rows: NDArray[Any]) -> None:
    for row, values in enumerate(rows):
        shard.read_into(first_step + row, values)


def _scatter(shard: ShardFile, first_step: int, rows: NDArray[Any]) -> bool:
    """One ``preadv`` over all rows; False when it did not bring everything."""
    spare = np.empty((len(rows), CHECKSUM_BYTES), dtype=np.uint8)
    buffers = [part for row, gap in zip(rows, spare, strict=True) for part in (row, gap)]
    return shard.read_bytes(first_step, 0, buffers) == rows.nbytes + spare.nbytes


def _copy_out(shard: ShardFile, first_step: int, rows: NDArray[Any]) -> bool:
    """As ``_scatter``, for frames so small that one copy costs less than many buffers."""
    frame_bytes = rows.strides[0]
    block = np.empty((len(rows), frame_bytes + CHECKSUM_BYTES), dtype=np.uint8)
    complete = shard.read_bytes(first_step, 0, [block]) == block.nbytes
    rows.reshape(len(rows), -1).view(np.uint8)[...] = block[:, :frame_bytes]
    return complete
