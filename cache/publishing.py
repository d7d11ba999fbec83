"""How a finished scene becomes visible: all of it, once, whoever else writes the same scene."""

from pathlib import Path

import numpy as np

from cache.durable_files import disk_errors, move_into_place, remove_file, write_file
from cache.group import CacheGroup
from cache.layout import CacheLayout
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
    index = group.scene_indices[scene_name]
    remove_file(layout.receipt(scene_name))
    remove_file(layout.valid_chunk(index))
    for name, array in group.arrays.items():
        remove_file(layout.shard(name, index, 2 + len(array.shape)))


def _place(layout: CacheLayout, group: CacheGroup, receipt: Receipt, folder: Path) -> None:
    index = group.scene_indices[receipt.scene_name]
    remove_file(layout.valid_chunk(index))  # left by a writer that was killed just before its receipt
    for name in receipt.shards:
        move_into_place(folder / name, layout.shard(name, index, 2 + len(group.arrays[name].shape)))
    write_file(layout.valid_chunk(index), _valid_bytes(receipt, group), folder / "valid.partial")
    write_file(layout.receipt(receipt.scene_name), receipt_bytes(receipt, group), folder / "receipt.partial")


def _valid_bytes(receipt: Receipt, group: CacheGroup) -> bytes:
    valid = np.zeros(group.step_axis, dtype=np.uint8)
    valid[: receipt.rows.num_rows] = 1
    return valid.tobytes() + crc32c(bytes_of(valid)).to_bytes(CHECKSUM_BYTES, "little")
