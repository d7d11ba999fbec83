"""How a finished scene becomes visible: all of it, once, whoever else writes the same scene."""

from pathlib import Path

import numpy as np

from cache.durable_files import disk_errors, move_into_place, remove_file, write_file
from cache.group import CacheGroup
from cache.layout import VALID, CacheLayout
from cache.receipts import Receipt, receipt_bytes
from cache.scene_lock import exclusive_lock
from cache.shard_bytes import CHECKSUM_BYTES, bytes_of, crc32c


def publish(layout: CacheLayout, group: CacheGroup, receipt: Receipt, folder: Path) -> bool:
    """Move a scene's finished shards into place, then write ``valid``, then the receipt; all under the scene's lock.

    Args:
        layout: the cache's paths.
        group: its manifest and scene axis.
        receipt: what was written.
        folder: holds one finished, fsynced shard per array, named as the array.

    Returns:
        False when the scene has a receipt already: another writer was first, and nothing was touched.

    Raises:
        CacheError: the disk refused; everything that had been moved is removed again.
    """
    with (
        disk_errors(f"committing scene {receipt.scene_name}", layout.root),
        exclusive_lock(layout.scene_lock(receipt.scene_name)),
    ):
        if layout.receipt(receipt.scene_name).exists():
            return False
        try:
            _place(layout, group, receipt, folder)
        except BaseException:
            withdraw(layout, group, receipt.scene_name)
            raise
    return True


def withdraw(layout: CacheLayout, group: CacheGroup, scene_name: str) -> None:
    """Make a scene absent: receipt first, then ``valid``, then the shards. The caller holds the scene's lock."""
    remove_file(layout.receipt(scene_name))
    for path in scene_files(layout, group, scene_name).values():
        remove_file(path)


def scene_files(layout: CacheLayout, group: CacheGroup, scene_name: str) -> dict[str, Path]:
    """Where a scene's chunk of ``valid`` and its shards belong, by array name, in the order of their removal."""
    index = group.scene_indices[scene_name]
    shards = {name: layout.shard(name, index, 2 + len(array.shape)) for name, array in group.arrays.items()}
    return {VALID: layout.valid_chunk(index)} | shards


def valid_bytes(steps: int, group: CacheGroup) -> bytes:
    """The chunk of ``valid`` of a scene.

    Args:
        steps: how many frames the scene has.
        group: says how many the longest has.
    """
    valid = np.zeros(group.step_axis, dtype=np.uint8)
    valid[:steps] = 1
    return valid.tobytes() + crc32c(bytes_of(valid)).to_bytes(CHECKSUM_BYTES, "little")


def _place(layout: CacheLayout, group: CacheGroup, receipt: Receipt, folder: Path) -> None:
    files = scene_files(layout, group, receipt.scene_name)
    remove_file(files[VALID])  # left by a writer that was killed just before its receipt
    for name in receipt.shards:
        move_into_place(folder / name, files[name])
    write_file(files[VALID], valid_bytes(receipt.rows.num_rows, group), folder / "valid.partial")
    write_file(layout.receipt(receipt.scene_name), receipt_bytes(receipt, group), folder / "receipt.partial")
