"""The rows a scene must have before it may be called finished."""

import pyarrow as pa

from cache.zarr_documents import SceneSlot
from schemas.frame_index import FRAME_SCHEMA


def row_fault(rows: pa.Table, slot: SceneSlot) -> str | None:
    """What is wrong with the frame rows of a scene, in words; None when nothing is.

    Args:
        rows: any table.
        slot: the scene's place on the axis.
    """
    if not rows.schema.equals(FRAME_SCHEMA):
        return f"its frame rows have the columns {rows.schema.names}, expected FRAME_SCHEMA {FRAME_SCHEMA.names}"
    if rows.num_rows != slot.length:
        return f"it has {rows.num_rows} frame rows, expected {slot.length}, one per keyframe of the scene"
    for column, expected in (("scene_name", slot.name), ("scene_token", slot.token)):
        found = set(rows[column].to_pylist()) - {expected}
        if found:
            return f"its frame rows state {column} {sorted(found)[0]!r}, expected {expected!r}"
    if rows["step"].to_pylist() != list(range(slot.length)):
        return f"its frame rows have the steps {rows['step'].to_pylist()}, expected 0 to {slot.length - 1} in order"
    if len(set(rows["sample_token"].to_pylist())) != slot.length:
        return "its frame rows name a sample_token twice"
    return None
