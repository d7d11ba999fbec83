"""Receipts: one small Parquet file per finished scene. A scene exists when its receipt exists.

A receipt has one row per frame: the columns of ``FRAME_SCHEMA``, then for every stored array the columns
``<array>/offset``, ``<array>/nbytes`` and ``<array>/crc32c``. Facts about the scene as a whole stand in the Parquet
key-value metadata, as JSON under the key ``bev-teacher-cache``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from cache.damage import damaged, damaged_file
from cache.frame_rows import row_fault
from cache.group import CacheGroup
from cache.layout import shard_key
from cache.parquet_file import UNREADABLE, parquet_bytes, read_parquet
from cache.shard_bytes import CHECKSUM_BYTES, ShardContents, index_nbytes, raw_nbytes
from cache.storage import AnyLayout, file_names, read_whole
from schemas.errors import CacheError
from schemas.frame_index import FRAME_SCHEMA

_SUFFIX = ".parquet"


@dataclass(frozen=True, eq=False)
class Receipt:
    """What was written for one scene.

    Attributes:
        scene_name: which scene.
        rows: its frames in ``FRAME_SCHEMA``.
        shards: array name to what its shard holds.
        made_with: program version, device and the like, as the writer told them: recorded, compared with nothing.
    """

    scene_name: str
    rows: pa.Table
    shards: Mapping[str, ShardContents]
    made_with: Mapping[str, str] = field(default_factory=dict)


def listed_receipts(layout: AnyLayout, group: CacheGroup) -> tuple[str, ...]:
    """Names of the scenes that have a receipt, in the order of the scene axis.

    Raises:
        CacheError: a receipt names a scene that the cache has no place for, or the disk refuses.
    """
    names = file_names(layout.receipts, "listing the receipts")
    found = {name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX) and not name.startswith(".")}
    for name in found:
        if name not in group.scene_indices:
            path = layout.receipt(name)
            raise damaged_file(
                "its receipts", f"{path.name} is a receipt for a scene that has no place here", path, layout.root
            )
    return tuple(slot.name for slot in group.slots if slot.name in found)


def receipt_bytes(receipt: Receipt, group: CacheGroup) -> bytes:
    """The receipt as a Parquet file."""
    table = receipt.rows
    for name, contents in receipt.shards.items():
        table = table.append_column(f"{name}/offset", pa.array(contents.offsets, pa.int64()))
        table = table.append_column(f"{name}/nbytes", pa.array(contents.nbytes, pa.int64()))
        table = table.append_column(f"{name}/crc32c", pa.array(contents.crc32c, pa.uint32()))
    facts = _facts(receipt.scene_name, receipt.shards, group) | {"made_with": dict(sorted(receipt.made_with.items()))}
    return parquet_bytes(table, facts)


def read_receipt(layout: AnyLayout, group: CacheGroup, scene_name: str) -> Receipt:
    """Read one receipt and check that it fits the cache.

    Raises:
        CacheError: absent, unreadable, of another scene or of another manifest.
        DiskError: it may not or cannot be read.
    """
    path = layout.receipt(scene_name)
    data = read_whole(path, f"reading the receipt of scene {scene_name}")
    if data is None:
        raise CacheError(
            f"scene {scene_name} is no longer in the cache: its receipt {path} is gone. "
            "Repeat the make cache-teacher command that filled the cache to make it again"
        )
    try:
        table, facts = read_parquet(data)
        rows = table.select(FRAME_SCHEMA.names).cast(FRAME_SCHEMA)
        shards = {entry["array"]: _contents(table, entry) for entry in facts["files"]}
        expected = _facts(scene_name, shards, group)
        made_with = {str(key): str(value) for key, value in facts.get("made_with", {}).items()}
    except UNREADABLE as error:
        raise damaged(scene_name, f"its receipt cannot be read: {error}", path) from error
    for key, value in expected.items():
        if facts.get(key) != value:
            raise damaged(scene_name, f"its receipt states {key} {facts.get(key)}, expected {value}", path)
    receipt = Receipt(scene_name, rows, shards, made_with)
    fault = _fault(receipt, group)
    if fault is not None:
        raise damaged(scene_name, f"its receipt cannot be right: {fault}", path)
    return receipt


def _facts(scene_name: str, shards: Mapping[str, ShardContents], group: CacheGroup) -> dict[str, Any]:
    index = group.scene_indices[scene_name]
    return {
        "format_version": group.manifest.format_version,
        "fingerprint": group.fingerprint,
        "scene_name": scene_name,
        "scene_index": index,
        "files": [
            {
                "array": name,
                "path": f"{name}/{shard_key(index, 2 + len(group.arrays[name].shape))}",
                "bytes": contents.file_bytes,
            }
            for name, contents in shards.items()
        ],
    }


def _contents(table: pa.Table, entry: Mapping[str, Any]) -> ShardContents:
    name = entry["array"]
    return ShardContents(
        # Through lists, which are short here: pyarrow's own way to numpy would import pandas.
        offsets=np.array(table[f"{name}/offset"].to_pylist(), dtype=np.int64),
        nbytes=np.array(table[f"{name}/nbytes"].to_pylist(), dtype=np.int64),
        crc32c=np.array(table[f"{name}/crc32c"].to_pylist(), dtype=np.uint32),
        file_bytes=int(entry["bytes"]),
    )


def _fault(receipt: Receipt, group: CacheGroup) -> str | None:
    """What is wrong with a receipt, given all that is known of its scene; None when nothing is."""
    fault = row_fault(receipt.rows, group.slot(receipt.scene_name))
    if fault is not None:
        return fault
    if receipt.shards.keys() != group.arrays.keys():
        return f"it names the arrays {sorted(receipt.shards)}, expected {sorted(group.arrays)}"
    for name, contents in receipt.shards.items():
        if not group.compressed and (contents.nbytes != raw_nbytes(group.arrays[name])).any():
            return f"array {name}: frames of {contents.nbytes[0]} bytes, expected {raw_nbytes(group.arrays[name])}"
        ends = np.cumsum(contents.nbytes + CHECKSUM_BYTES)
        starts = np.concatenate([[0], ends[:-1]])
        if (contents.offsets != starts).any() or contents.file_bytes != ends[-1] + index_nbytes(group.step_axis):
            return f"array {name}: the frames it states do not follow each other and fill the file"
    return None
