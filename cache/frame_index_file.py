"""``frames.parquet``: the frame rows of all receipts in one file, so that opening a large cache costs milliseconds.

It is derived. It is used only if it names exactly the scenes that have receipts; otherwise the rows it lacks are read
from the receipts, in memory. Whoever removes a receipt in a program removes this file first.
"""

from collections.abc import Mapping

import pyarrow as pa

from cache.durable_files import disk_errors, write_file
from cache.group import CacheGroup
from cache.layout import CacheLayout
from cache.parquet_file import UNREADABLE, parquet_bytes, read_parquet
from cache.receipts import Receipt, listed_receipts, read_receipt
from cache.scene_lock import exclusive_lock
from cache.storage import AnyLayout, can_list, read_whole
from schemas.errors import CacheError, DiskError
from schemas.frame_index import FRAME_SCHEMA


def load_frames(layout: AnyLayout, group: CacheGroup) -> pa.Table:
    """Rows of all frames that have receipts, in the order of the scene axis, then step.

    Returns:
        A table in ``FRAME_SCHEMA``.

    Raises:
        CacheError: a receipt is damaged, or there is nothing to tell which scenes there are.
    """
    names, rows = _read_index(layout, group)
    if not can_list(layout):
        if names:
            return rows
        raise CacheError(
            f"{layout.frames} is missing or is not this cache's, and over HTTP it alone tells which scenes there are. "
            "Copy the file frames.parquet of the cache as well; make cache-teacher writes it after every scene"
        )
    listed = listed_receipts(layout, group)
    if names == listed:
        return rows
    known = {name: table for name, table in _by_scene(names, rows, group).items() if name in listed}
    return _concatenated(known | {n: read_receipt(layout, group, n).rows for n in listed if n not in known}, group)


def add_to_frames(layout: CacheLayout, group: CacheGroup, receipts: tuple[Receipt, ...]) -> None:
    """Bring ``frames.parquet`` up to date with the receipts listed.

    Args:
        layout: the cache's paths.
        group: its manifest and scene axis.
        receipts: receipts just written, whose rows replace what the file may say of their scenes.

    Raises:
        CacheError: a receipt is damaged, or the disk refuses.
    """
    with (
        disk_errors("writing the frame index (finished scenes stay, it is made again when needed)", layout.frames),
        exclusive_lock(layout.index_lock),
    ):
        listed = listed_receipts(layout, group)
        names, rows = _read_index(layout, group)
        if names == listed and not receipts:
            return
        known = _by_scene(names, rows, group) | {receipt.scene_name: receipt.rows for receipt in receipts}
        known |= {name: read_receipt(layout, group, name).rows for name in listed if name not in known}
        table = _concatenated({name: known[name] for name in listed}, group)
        facts = {
            "format_version": group.manifest.format_version,
            "fingerprint": group.fingerprint,
            "scenes": list(listed),
        }
        write_file(layout.frames, parquet_bytes(table, facts), layout.workshop / "frames.partial")


def index_fault(layout: CacheLayout, group: CacheGroup, receipts: Mapping[str, Receipt]) -> str | None:
    """What is wrong with ``frames.parquet``, in words; None when nothing is, or when there is no such file.

    Args:
        layout: the cache's paths.
        group: its manifest and scene axis.
        receipts: those that can be read, by scene name; what the file says of other scenes is not looked at.

    Raises:
        DiskError: the file may not be read.
    """
    data = read_whole(layout.frames, "reading the frame index")
    if data is None:
        return None
    try:
        names, rows = _index_of(data, group)
    except UNREADABLE as error:
        return f"the frame index cannot be read: {error}"
    for name, table in _by_scene(names, rows, group).items():
        if name in receipts and not table.equals(receipts[name].rows):
            return f"its rows of scene {name} differ from the receipt's"
    return None


def _read_index(layout: AnyLayout, group: CacheGroup) -> tuple[tuple[str, ...], pa.Table]:
    """Scene names and rows of the file; nothing when it is absent, damaged or another cache's, for it is derived."""
    try:
        return _index_of(layout.frames.read_bytes(), group)
    except DiskError:
        raise
    except UNREADABLE:
        return (), pa.Table.from_batches([], schema=FRAME_SCHEMA)


def _index_of(data: bytes, group: CacheGroup) -> tuple[tuple[str, ...], pa.Table]:
    """Scene names and rows of the file's content.

    Raises:
        one of ``UNREADABLE``: the content is damaged or another cache's.
    """
    table, facts = read_parquet(data)
    rows, names = table.cast(FRAME_SCHEMA), tuple(facts["scenes"])
    if facts["fingerprint"] != group.fingerprint:
        raise ValueError(f"it states fingerprint {facts['fingerprint']}, expected {group.fingerprint}")
    expected = sum(group.slot(name).length for name in names)
    if rows.num_rows != expected:
        raise ValueError(f"it holds {rows.num_rows} rows, expected {expected} for the scenes it names")
    return names, rows


def _by_scene(names: tuple[str, ...], rows: pa.Table, group: CacheGroup) -> dict[str, pa.Table]:
    """The file's rows, scene by scene: each scene's stand together, one per keyframe."""
    known, start = {}, 0
    for name in names:
        length = group.slot(name).length
        known[name] = rows.slice(start, length)
        start += length
    return known


def _concatenated(known: dict[str, pa.Table], group: CacheGroup) -> pa.Table:
    ordered = sorted(known, key=group.scene_indices.__getitem__)
    return (
        pa.concat_tables([known[name] for name in ordered])
        if ordered
        else pa.Table.from_batches([], schema=FRAME_SCHEMA)
    )
