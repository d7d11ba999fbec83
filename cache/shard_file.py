"""One scene of one array, open for reading: what a reader needs to fetch frames with ``preadv`` and trust them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.damage import damaged
from cache.durable_files import disk_errors
from cache.mapped_cells import MappedFile, map_file
from cache.shard_bytes import ShardContents, crc32c, decode_payload, decode_payload_into, index_bytes
from cache.storage import AnyFile, file_size, read_parts, read_span, read_with_checksum
from schemas.features import StoredArray


@dataclass(frozen=True, eq=False)
class ShardFile:
    """A shard that matches its scene's receipt in size and index; frames are checked as they are read.

    A chunk lies at ``offsets[step]``: ``nbytes[step]`` bytes of payload, then 4 bytes of its crc32c. Uncompressed
    payloads are the values themselves, C order, little-endian, and consecutive steps follow each other without a
    gap, so one ``preadv`` reads a clip into preallocated buffers when 4 spare bytes stand between them.

    Attributes:
        path: the file.
        scene_name: its scene.
        array: name, dims, shape and dtype of one frame.
        compressed: whether payloads are zstd frames (tier ``archive``), which ``read`` undoes.
        offsets: (steps,) int64 bytes from the start of the file.
        nbytes: (steps,) int64 payload bytes.
        crc32c: (steps,) uint32 of each payload, as the receipt states them: a payload whose own checksum is right but
            differs from this belongs to another scene or another writing.
    """

    path: AnyFile
    scene_name: str
    array: StoredArray
    compressed: bool
    offsets: NDArray[np.int64]
    nbytes: NDArray[np.int64]
    crc32c: NDArray[np.uint32]
    _mapped: list[MappedFile] = field(default_factory=list, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": []}  # another process maps the file for itself

    def mapped(self) -> MappedFile | None:
        """The file, mapped from the first call on; None where that cannot be done."""
        if not self._mapped and isinstance(self.path, Path):
            self._mapped.extend(found for found in [map_file(self.path)] if found is not None)
        return self._mapped[0] if self._mapped else None

    @property
    def steps(self) -> int:
        """Number of frames."""
        return len(self.offsets)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of a frame, little-endian."""
        return np.dtype(self.array.dtype).newbyteorder("<")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a frame."""
        return self.array.shape

    def read(self, step: int) -> NDArray[Any]:
        """One frame as stored, verified.

        Returns:
            ``array.shape`` of ``array.dtype``.

        Raises:
            CacheError: the file is gone or shorter than it was, or the frame fails its checksum.
        """
        payload = np.empty(int(self.nbytes[step]), dtype=np.uint8)
        self._read_payload(step, payload)
        return decode_payload(payload, self.array, self.compressed)

    def read_into(self, step: int, into: NDArray[Any]) -> None:
        """As ``read``, into memory that is there already: ``shape`` of ``dtype``, C-contiguous."""
        assert into.shape == self.shape, self.array.name
        assert into.dtype == self.dtype, self.array.name
        assert into.flags.c_contiguous, self.array.name
        if self.compressed:
            payload = np.empty(int(self.nbytes[step]), dtype=np.uint8)
            self._read_payload(step, payload)
            decode_payload_into(payload, into)
        else:
            self._read_payload(step, into.reshape(-1).view(np.uint8))

    def _read_payload(self, step: int, payload: NDArray[np.uint8]) -> None:
        assert 0 <= step < self.steps, f"{self.scene_name} has {self.steps} steps, asked for {step}"
        with _read_errors(self, self._where(step)):
            count, checksum = read_with_checksum(self.path, int(self.offsets[step]), payload)
        if count < len(payload):
            raise damaged(self.scene_name, f"{self._where(step)}: the file ends before the frame does", self.path)
        self._compare(step, checksum)

    def read_bytes(self, step: int, start: int, buffers: Sequence[NDArray[Any]]) -> int:
        """Fill buffers with consecutive bytes of the file, unverified.

        Args:
            step: the frame from whose payload's beginning ``start`` counts.
            start: bytes.
            buffers: C-contiguous; at most 1024.

        Returns:
            How many bytes there were: fewer than asked where the file ends.

        Raises:
            CacheError: the file is gone or cannot be read.
        """
        with _read_errors(self, self._where(step)):
            return read_span(self.path, int(self.offsets[step]) + start, buffers)

    def read_parts(self, step: int, starts: NDArray[np.int64], sizes: NDArray[np.int64], into: NDArray[Any]) -> None:
        """Read parts of one frame's payload, one behind the other, unverified.

        Args:
            step: the frame.
            starts: where each part begins, in bytes from the payload's beginning.
            sizes: bytes of each part.
            into: as many bytes as they have together, C-contiguous.

        Raises:
            CacheError: the file is gone, ends before the frame does, or cannot be read.
        """
        assert 0 <= step < self.steps, f"{self.scene_name} has {self.steps} steps, asked for {step}"
        places = (starts + self.offsets[step]).tolist()
        with _read_errors(self, self._where(step)):
            complete = read_parts(self.path, places, sizes.tolist(), into.reshape(-1).view(np.uint8).data)
        if not complete:
            raise damaged(self.scene_name, f"{self._where(step)}: the file ends before the frame does", self.path)

    def verify(self, step: int, payload: NDArray[np.uint8]) -> None:
        """Check the bytes of one payload against the receipt.

        Raises:
            CacheError: they differ; scene, array and step are named.
        """
        self._compare(step, crc32c(payload))

    def _compare(self, step: int, found: int) -> None:
        if found != self.crc32c[step]:
            raise damaged(
                self.scene_name,
                f"{self._where(step)}: expected crc32c {self.crc32c[step]:08x} as in the receipt, found {found:08x}",
                self.path,
            )

    def _where(self, step: int) -> str:
        return f"array {self.array.name}, step {step}"


def check_shard(shard: ShardFile, contents: ShardContents, step_axis: int) -> None:
    """Check a shard's size and index against its receipt, without reading any frame.

    Raises:
        CacheError: the file is missing, has another size, or holds another index.
    """
    expected = index_bytes(contents, step_axis)
    where = f"array {shard.array.name}"
    with _read_errors(shard, where):
        size, found = _read_tail(shard.path, contents.file_bytes, len(expected))
    if size != contents.file_bytes:
        what = f"{where}: expected {contents.file_bytes} bytes as in the receipt, found {size}"
        raise damaged(shard.scene_name, what, shard.path)
    if found != expected:
        what = f"{where}: the index at the end of the file differs from the receipt"
        raise damaged(shard.scene_name, what, shard.path)


@contextmanager
def _read_errors(shard: ShardFile, where: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        what = f"{where}: the file that the receipt names is missing"
        raise damaged(shard.scene_name, what, shard.path) from error
    except OSError as error:
        assert isinstance(shard.path, Path), "a remote file has errors of its own"
        with disk_errors(f"reading scene {shard.scene_name}, {where}", shard.path):
            raise error


def _read_tail(path: AnyFile, file_bytes: int, length: int) -> tuple[int, bytes]:
    """Size of a file that should have ``file_bytes``, and what should be its last ``length``.

    One byte more is asked for than there should be, which tells the size and the index in one request.
    """
    tail = np.empty(length + 1, dtype=np.uint8)
    count = read_span(path, file_bytes - length, [tail])
    return file_bytes if count == length else file_size(path), tail[:length].tobytes()
