"""Reading files of a cache, local or remote. All that differs between the two is in here and in ``remote_file``.

Writers use ``pathlib`` and never come here: a cache is written to a local folder.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cache.durable_files import disk_errors
from cache.layout import CacheLayout
from cache.remote_file import RemoteFile
from cache.shard_bytes import extended_crc32c

BLOCK_BYTES = 1 << 20
"""Checksums are taken block by block: a second pass over a whole frame would fetch it from memory again."""

AnyFile: TypeAlias = Path | RemoteFile
AnyLayout: TypeAlias = CacheLayout[Path] | CacheLayout[RemoteFile]


def read_whole(file: AnyFile, doing: str) -> bytes | None:
    """A small file; None when there is none.

    Raises:
        DiskError: it cannot be read; ``doing`` says in the message what for.
    """
    try:
        if isinstance(file, RemoteFile):
            return file.read_bytes()
        with disk_errors(doing, file):
            return _bytes_or_none(file)
    except FileNotFoundError:
        return None


def can_list(layout: AnyLayout) -> bool:
    """Whether the receipts can be listed: over HTTP there are no folders."""
    return isinstance(layout.root, Path) or layout.root.can_list


def file_names(folder: AnyFile, doing: str) -> list[str]:
    """Names in a folder that can be listed.

    Raises:
        DiskError: the disk or the host refuses.
    """
    if isinstance(folder, RemoteFile):
        return folder.names()
    with disk_errors(doing, folder):
        return [path.name for path in folder.iterdir()]


def read_span(file: AnyFile, offset: int, buffers: Sequence[NDArray[Any]]) -> int:
    """Fill buffers, one after the other, with consecutive bytes of a file.

    Args:
        file: the file.
        offset: bytes from its start.
        buffers: C-contiguous; at most 1024.

    Returns:
        How many bytes there were: fewer than asked where the file ends.

    Raises:
        OSError: the file is absent, or the disk refuses.
        DiskError: the host refuses.
    """
    if isinstance(file, RemoteFile):
        return _scatter(file.read_range(offset, sum(buffer.nbytes for buffer in buffers)), buffers)
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _read_descriptor(descriptor, offset, buffers)
    finally:
        os.close(descriptor)


def read_with_checksum(file: AnyFile, offset: int, target: NDArray[np.uint8]) -> tuple[int, int]:
    """Fill memory with consecutive bytes of a file, and take their checksum while the processor's cache holds them.

    Returns:
        How many bytes there were, fewer than asked where the file ends, and their crc32c.

    Raises:
        OSError: the file is absent, or the disk refuses.
        DiskError: the host refuses.
    """
    if isinstance(file, RemoteFile):
        count = read_span(file, offset, [target])
        return count, extended_crc32c(0, target[:count])
    done, checksum = 0, 0
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while done < len(target):
            block = target[done : done + BLOCK_BYTES]
            count = os.preadv(descriptor, (block.data,), offset + done)
            if count == 0:
                break
            checksum = extended_crc32c(checksum, block[:count])
            done += count
    finally:
        os.close(descriptor)
    return done, checksum


def read_parts(file: AnyFile, starts: Sequence[int], sizes: Sequence[int], memory: memoryview) -> bool:
    """Read many parts of one file, one behind the other into ``memory``; False when the file ends before a part does.

    Raises:
        OSError: the file is absent, or the disk refuses.
        DiskError: the host refuses.
    """
    done = 0
    if isinstance(file, RemoteFile):
        for start, size in zip(starts, sizes, strict=True):
            data = file.read_range(start, size)
            if len(data) < size:
                return False
            memory[done : done + size] = data
            done += size
        return True
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for start, size in zip(starts, sizes, strict=True):
            count = os.preadv(descriptor, (memory[done : done + size],), start)
            if count < size:  # hardly ever before the file's end
                rest = np.frombuffer(memory[done + count : done + size], np.uint8)
                if _read_descriptor(descriptor, start + count, [rest]) < len(rest):
                    return False
            done += size
    finally:
        os.close(descriptor)
    return True


def file_size(file: AnyFile) -> int:
    """Bytes in a file.

    Raises:
        OSError: the file is absent, or the disk refuses.
        DiskError: the host refuses.
    """
    return file.size() if isinstance(file, RemoteFile) else file.stat().st_size


def _bytes_or_none(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def _read_descriptor(descriptor: int, offset: int, buffers: Sequence[NDArray[Any]]) -> int:
    done = os.preadv(descriptor, [buffer.data for buffer in buffers], offset)
    wanted = sum(buffer.nbytes for buffer in buffers)
    while done < wanted:  # the file has ended, or the kernel stopped short: a call moves at most 2 GiB
        count = os.preadv(descriptor, _rest(buffers, done), offset + done)
        if count == 0:
            break
        done += count
    return done


def _rest(buffers: Sequence[NDArray[Any]], done: int) -> list[memoryview]:
    """What of the buffers follows the first ``done`` bytes."""
    rest = []
    for buffer in buffers:
        if done < buffer.nbytes:
            rest.append(_flat(buffer)[done:].data)
        done = max(0, done - buffer.nbytes)
    return rest


def _scatter(data: bytes, buffers: Sequence[NDArray[Any]]) -> int:
    start = 0
    for buffer in buffers:
        part = np.frombuffer(data, dtype=np.uint8)[start : start + buffer.nbytes]
        _flat(buffer)[: len(part)] = part
        start += len(part)
    return start


def _flat(buffer: NDArray[Any]) -> NDArray[np.uint8]:
    return buffer.reshape(-1).view(np.uint8)
