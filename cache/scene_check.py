"""Every promise about one scene, checked against the disk: receipt, shards, frames, ``valid``."""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from cache.damage import Damage, DamageError, Remedy
from cache.durable_files import disk_errors
from cache.group import CacheGroup
from cache.layout import VALID, CacheLayout
from cache.publishing import scene_files, valid_bytes
from cache.receipts import Receipt, read_receipt
from cache.shard_bytes import CHECKSUM_BYTES, ShardContents, crc32c, decode_payload, index_bytes
from cache.storage import read_whole
from schemas.errors import CacheError, DiskError
from schemas.features import StoredArray


@dataclass(frozen=True)
class SceneCheck:
    """What was found of one scene.

    Attributes:
        receipt: what the scene says of itself; None when it has no receipt, or none that can be read.
        damages: everything that is wrong, or left over.
    """

    receipt: Receipt | None
    damages: tuple[Damage, ...]


def check_scene(layout: CacheLayout, group: CacheGroup, scene_name: str) -> SceneCheck:
    """Check one scene wholly; one frame of one array is in memory at a time.

    A scene that another process commits, drops or makes again meanwhile is looked at once more.

    Raises:
        DiskError: the folder of receipts cannot be looked into.
    """
    path = layout.receipt(scene_name)
    while True:
        before = _identity(path)
        check = _present(layout, group, scene_name) if before else _absent(layout, group, scene_name)
        if not check.damages or _identity(path) == before:
            return check


def remedy_of_refusal(error: DiskError | OSError, otherwise: Remedy) -> Remedy:
    """What to do about a file that the operating system does not hand out: a bad sector is damage, a refusal is not."""
    cause = error.__cause__ if isinstance(error, DiskError) else error
    number = cause.errno if isinstance(cause, OSError) else None
    return otherwise if number in (errno.EIO, errno.EISDIR) else "mend permissions"


def _identity(path: Path) -> tuple[int, int] | None:
    """Tells one receipt from the next at the same path; None when there is none. Compared for equality only."""
    with disk_errors("looking for a receipt", path):
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
    return status.st_ino, status.st_ctime_ns


def _absent(layout: CacheLayout, group: CacheGroup, scene_name: str) -> SceneCheck:
    what = "there is no receipt: left by a writer that was killed, or just being committed"
    found = [(name, path) for name, path in scene_files(layout, group, scene_name).items() if path.exists()]
    return SceneCheck(None, tuple(Damage(scene_name, name, None, what, path, "sweep") for name, path in found))


def _present(layout: CacheLayout, group: CacheGroup, scene_name: str) -> SceneCheck:
    path = layout.receipt(scene_name)
    try:
        receipt = read_receipt(layout, group, scene_name)
    except DamageError as error:
        return SceneCheck(None, (Damage(scene_name, None, None, error.what, path, "drop scene"),))
    except DiskError as error:
        return SceneCheck(
            None, (Damage(scene_name, None, None, str(error), path, remedy_of_refusal(error, "drop scene")),)
        )
    except CacheError:  # gone since we saw it
        return SceneCheck(None, ())
    damages = [damage for name in group.arrays for damage in _shard_damages(layout, group, receipt, name)]
    return SceneCheck(receipt, (*damages, *_valid_damages(layout, group, receipt)))


def _shard_damages(layout: CacheLayout, group: CacheGroup, receipt: Receipt, array_name: str) -> Iterator[Damage]:
    path = scene_files(layout, group, receipt.scene_name)[array_name]
    contents = receipt.shards[array_name]
    try:
        with path.open("rb") as file:
            for what in _frame_of_shard_faults(file, contents, group.step_axis):
                yield Damage(receipt.scene_name, array_name, None, what, path, "drop scene")
            for step, what in _frame_faults(file, contents, group.arrays[array_name], group.compressed):
                yield Damage(receipt.scene_name, array_name, step, what, path, "drop scene")
    except FileNotFoundError:
        what = "the file that the receipt names is missing"
        yield Damage(receipt.scene_name, array_name, None, what, path, "drop scene")
    except OSError as error:
        what = f"the file cannot be read: {error.strerror or error}"
        yield Damage(receipt.scene_name, array_name, None, what, path, remedy_of_refusal(error, "drop scene"))


def _frame_of_shard_faults(file: BinaryIO, contents: ShardContents, step_axis: int) -> Iterator[str]:
    """Size and index: what stands around the frames."""
    size = os.fstat(file.fileno()).st_size
    if size != contents.file_bytes:
        yield f"expected {contents.file_bytes} bytes as in the receipt, found {size}"
        return
    expected = index_bytes(contents, step_axis)
    file.seek(size - len(expected))
    if file.read() != expected:
        yield "the index at the end of the file differs from the receipt"


def _frame_faults(
    file: BinaryIO, contents: ShardContents, array: StoredArray, compressed: bool
) -> Iterator[tuple[int, str]]:
    for step, (offset, nbytes, checksum) in enumerate(
        zip(contents.offsets.tolist(), contents.nbytes.tolist(), contents.crc32c.tolist(), strict=True)
    ):
        chunk = np.empty(nbytes + CHECKSUM_BYTES, dtype=np.uint8)
        file.seek(offset)
        if file.readinto(chunk.data) < len(chunk):  # type: ignore[attr-defined]  # of every binary file that open makes
            yield step, "the file ends before the frame does"
            continue
        fault = _chunk_fault(chunk, checksum) or _value_fault(chunk[:-CHECKSUM_BYTES], array, compressed)
        if fault is not None:
            yield step, fault


def _chunk_fault(chunk: NDArray[np.uint8], checksum: int) -> str | None:
    """A chunk against the receipt's checksum, and its own."""
    found = crc32c(chunk[:-CHECKSUM_BYTES])
    own = int.from_bytes(chunk[-CHECKSUM_BYTES:].tobytes(), "little")
    if found != checksum:
        whose = "; the frame is whole, but of another scene or another writing" if found == own else ""
        return f"expected crc32c {checksum:08x} as in the receipt, found {found:08x}{whose}"
    if own != checksum:
        return f"expected the checksum {checksum:08x} behind the frame, found {own:08x}: plain Zarr refuses it"
    return None


def _value_fault(payload: NDArray[np.uint8], array: StoredArray, compressed: bool) -> str | None:
    """A sound frame may still hold what no writer of this format stores."""
    try:
        values = decode_payload(payload, array, compressed)
    except (ValueError, RuntimeError) as error:
        return f"the frame cannot be unpacked: {error}"
    if np.isnan(array.fill_value):
        if not np.isfinite(values).all():
            return "the frame holds values that are NaN or infinite"
    elif (values == int(array.fill_value)).any():
        return f"the frame holds the fill value {int(array.fill_value)}, which is never a datum"
    return None


def _valid_damages(layout: CacheLayout, group: CacheGroup, receipt: Receipt) -> Iterator[Damage]:
    path = scene_files(layout, group, receipt.scene_name)[VALID]
    try:
        found = read_whole(path, "reading valid")
    except DiskError as error:
        yield Damage(receipt.scene_name, VALID, None, str(error), path, remedy_of_refusal(error, "rebuild"))
        return
    if found != valid_bytes(receipt.rows.num_rows, group):
        what = "the file is missing" if found is None else "it does not say what the receipt says"
        yield Damage(receipt.scene_name, VALID, None, what, path, "rebuild")
