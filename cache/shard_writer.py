"""Writes one shard by appending: the memory of a frame suffices for a scene of any length.

Zarr libraries rewrite a shard for every frame put into it, which costs half the scene per frame; the sharding format
itself asks for no such thing, because its index stands at the end.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.durable_files import start_writeback, write_all
from cache.shard_bytes import CHECKSUM_BYTES, ShardContents, crc32c, encode_payload, index_bytes, index_nbytes
from schemas.features import StoredArray

_WORTH_A_HINT_BYTES = 1 << 18


class ShardWriter:
    """One shard under construction, in a file that has no visible name yet."""

    def __init__(self, path: Path, array: StoredArray, step_axis: int, compressed: bool) -> None:
        self.array = array
        self._step_axis = step_axis
        self._compressed = compressed
        self._chunks: list[tuple[int, int, int]] = []  # offset, payload bytes, crc32c
        self._end = 0
        self._descriptor: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def append(self, values: NDArray[Any]) -> None:
        """Append the next step.

        Args:
            values: shape and dtype of the array, one frame.

        Raises:
            OSError: the disk refused; the shard must be abandoned.
        """
        assert self._descriptor is not None, "the shard is closed"
        assert values.shape == self.array.shape, self.array.name
        assert values.dtype == self.array.dtype, self.array.name
        assert len(self._chunks) < self._step_axis, f"{self.array.name}: more steps than the step axis holds"
        payload = encode_payload(values, self._compressed)
        checksum = crc32c(payload)
        write_all(self._descriptor, payload.data)
        write_all(self._descriptor, checksum.to_bytes(CHECKSUM_BYTES, "little"))
        if len(payload) >= _WORTH_A_HINT_BYTES:
            start_writeback(self._descriptor, self._end, len(payload))
        self._chunks.append((self._end, len(payload), checksum))
        self._end += len(payload) + CHECKSUM_BYTES

    def finish(self) -> ShardContents:
        """Write the index, fsync and close.

        Raises:
            OSError: the disk refused; the shard must be abandoned.
        """
        assert self._descriptor is not None, "the shard is closed"
        table = np.array(self._chunks, dtype=np.int64).reshape(-1, 3)
        file_bytes = self._end + index_nbytes(self._step_axis)
        contents = ShardContents(table[:, 0], table[:, 1], table[:, 2].astype(np.uint32), file_bytes)
        write_all(self._descriptor, index_bytes(contents, self._step_axis))
        os.fsync(self._descriptor)
        self.close()
        return contents

    def close(self) -> None:
        """Close the file, finished or not. Harmless when done twice."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)
