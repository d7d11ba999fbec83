"""Parquet files with our facts in their key-value metadata, and their pages checksummed."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_KEY = b"bev-teacher-cache"

UNREADABLE = (OSError, pa.ArrowException, KeyError, ValueError, TypeError, AttributeError)
"""What reading a damaged file may raise."""


def parquet_bytes(table: pa.Table, facts: Mapping[str, Any]) -> bytes:
    """A table as a Parquet file, with ``facts`` as JSON under the key ``bev-teacher-cache``."""
    described = table.replace_schema_metadata({_KEY: json.dumps(facts).encode()})
    buffer = io.BytesIO()
    # Uncompressed: the columns are hashes and floats, and a cache of all nuScenes shall open in milliseconds.
    pq.write_table(
        described,
        buffer,
        compression="none",
        use_dictionary=["scene_name", "scene_token"],
        write_page_checksum=True,
    )
    return buffer.getvalue()


def read_parquet(path: Path | bytes) -> tuple[pa.Table, dict[str, Any]]:
    """The table, without metadata, and the facts, of a local file or of the bytes of any.

    Raises:
        one of ``UNREADABLE``: absent, damaged, or not written by ``parquet_bytes``.
    """
    source = pa.BufferReader(path) if isinstance(path, bytes) else path
    with pq.ParquetFile(source, page_checksum_verification=True) as file:
        table = file.read(use_threads=False)
    facts = json.loads((table.schema.metadata or {})[_KEY])
    if not isinstance(facts, dict):
        raise ValueError(f"expected facts about the scene, found {facts!r}")
    return table.replace_schema_metadata(None), facts
