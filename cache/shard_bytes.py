"""The bytes of a shard, as Zarr v3's ``sharding_indexed`` codec defines them, with our inner codecs.

chunk of step 0 | chunk of step 1 | ... | index | crc32c of the index

chunk   payload, then the payload's crc32c (uint32 little-endian)
        payload = the frame's values, C order, little-endian; in the tier ``archive``, zstd of that
index   for every step of the step axis: offset and length of its chunk (2 × uint64 little-endian);
        2^64 − 1 twice where the scene has no such step
"""

from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from schemas.features import StoredArray

CHECKSUM_BYTES = 4
ABSENT = np.iinfo(np.uint64).max
ZSTD_LEVEL = 1
"""Higher levels gain next to nothing on numbers this close to noise."""


@dataclass(frozen=True, eq=False)
class ShardContents:
    """Where each step's payload lies in a shard, and its checksum.

    Attributes:
        offsets: (steps,) int64 bytes from the start of the file.
        nbytes: (steps,) int64 payload bytes, without the checksum that follows.
        crc32c: (steps,) uint32 of the payload.
        file_bytes: size of the whole file.
    """

    offsets: NDArray[np.int64]
    nbytes: NDArray[np.int64]
    crc32c: NDArray[np.uint32]
    file_bytes: int


def crc32c(data: NDArray[np.uint8]) -> int:
    """CRC-32C (Castagnoli) of bytes held in a contiguous array."""
    return int(google_crc32c.value(data))


def extended_crc32c(checksum: int, data: NDArray[np.uint8]) -> int:
    """The CRC-32C of bytes seen before, whose checksum is given, and these."""
    return int(google_crc32c.extend(checksum, data))


def bytes_of(values: NDArray[Any]) -> NDArray[np.uint8]:
    """A flat view of an array's bytes, little-endian; a copy only where the array is not laid out so."""
    little = values.dtype.newbyteorder("<")
    return np.ascontiguousarray(values, dtype=little).reshape(-1).view(np.uint8)


def encode_payload(values: NDArray[Any], compressed: bool) -> NDArray[np.uint8]:
    """A frame's payload as stored, before its checksum."""
    raw = bytes_of(values)
    if not compressed:
        return raw
    from numcodecs.zstd import Zstd  # type: ignore[import-untyped]  # noqa: PLC0415  only this tier pays

    return np.frombuffer(Zstd(level=ZSTD_LEVEL).encode(raw), dtype=np.uint8)


def decode_payload(payload: NDArray[np.uint8], array: StoredArray, compressed: bool) -> NDArray[Any]:
    """A frame's values from its payload, which has passed its checksum; a view of it when uncompressed.

    Raises:
        ValueError: the payload does not hold one frame of ``array``.
    """
    if compressed:
        from numcodecs.zstd import Zstd  # noqa: PLC0415  only this tier pays

        payload = np.frombuffer(Zstd().decode(payload), dtype=np.uint8)
    return payload.view(np.dtype(array.dtype).newbyteorder("<")).reshape(array.shape)


def decode_payload_into(payload: NDArray[np.uint8], into: NDArray[Any]) -> None:
    """Decompress a frame's payload, which has passed its checksum, into memory of one frame."""
    from numcodecs.zstd import Zstd  # noqa: PLC0415  only this tier pays

    Zstd().decode(payload, out=into.reshape(-1).view(np.uint8))


def index_bytes(contents: ShardContents, step_axis: int) -> bytes:
    """The index that ends a shard, with its checksum.

    Args:
        contents: the chunks written.
        step_axis: size of the step axis, at least as many.
    """
    index = np.full((step_axis, 2), ABSENT, dtype="<u8")
    steps = len(contents.offsets)
    index[:steps, 0] = contents.offsets
    index[:steps, 1] = contents.nbytes + CHECKSUM_BYTES
    checksum = crc32c(bytes_of(index))
    return index.tobytes() + checksum.to_bytes(CHECKSUM_BYTES, "little")


def index_nbytes(step_axis: int) -> int:
    """Size of the index that ends a shard, with its checksum."""
    return 16 * step_axis + CHECKSUM_BYTES


def raw_nbytes(array: StoredArray) -> int:
    """Bytes of one frame, uncompressed."""
    return int(np.prod(array.shape)) * np.dtype(array.dtype).itemsize
