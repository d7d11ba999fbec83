"""The Zarr v3 metadata of a cache, as plain JSON values.

They are written out here rather than left to a library, so that the format stays what ``docs/format.md`` says whichever
version of zarr is installed, and so that a cache can be opened and checked without importing one.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cache.layout import VALID
from cache.shard_bytes import ZSTD_LEVEL
from schemas.features import INT8_LIMIT, UNIT_LIMIT, FeatureSpec, StoredArray, Tier
from schemas.manifest import Manifest

FORMAT_NAME = "bev-teacher-cache"

_STRUCTURE = (
    "zarr_format",
    "node_type",
    "shape",
    "data_type",
    "chunk_grid",
    "chunk_key_encoding",
    "fill_value",
    "codecs",
    "dimension_names",
)


@dataclass(frozen=True)
class SceneSlot:
    """One place on the scene axis.

    Attributes:
        name: e.g. ``scene-0061``.
        token: nuScenes token of the scene.
        length: number of its keyframes.
    """

    name: str
    token: str
    length: int


def group_document(manifest: Manifest, slots: Sequence[SceneSlot]) -> dict[str, Any]:
    """``zarr.json`` of the group: our attributes, and the metadata of all arrays so that one read opens everything."""
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {
            "format": FORMAT_NAME,
            "format_version": manifest.format_version,
            "fingerprint": manifest.fingerprint,
            "manifest": manifest.model_dump(mode="json"),
            "scenes": _axis(slots),
            "scenes_sha256": scenes_sha256(slots),
        },
        "consolidated_metadata": {
            "kind": "inline",
            "must_understand": False,
            "metadata": array_documents(manifest, slots),
        },
    }


def scenes_sha256(slots: Sequence[SceneSlot]) -> str:
    """sha256 (hex) of the canonical JSON of the scene axis, so that a change by hand shows."""
    canonical = json.dumps(_axis(slots), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def array_documents(manifest: Manifest, slots: Sequence[SceneSlot]) -> dict[str, dict[str, Any]]:
    """``zarr.json`` of every array, by array name."""
    leading = (len(slots), max(slot.length for slot in slots))
    documents = {VALID: _valid_document(leading)}
    for spec in manifest.features:
        for array in spec.stored(manifest.tier):
            documents[array.name] = _array_document(array, leading, manifest.tier == "archive") | {
                "attributes": _attributes(spec, array, manifest.tier)
            }
    return documents


def structure(document: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an array's metadata that decides where its bytes are and what they mean."""
    return {key: document.get(key) for key in _STRUCTURE}


def _axis(slots: Sequence[SceneSlot]) -> list[dict[str, Any]]:
    return [{"name": slot.name, "token": slot.token, "length": slot.length} for slot in slots]


def _array_document(array: StoredArray, leading: tuple[int, int], compressed: bool) -> dict[str, Any]:
    scenes, steps = leading
    codecs = [_bytes_codec(array.dtype), *([_zstd_codec()] if compressed else []), {"name": "crc32c"}]
    sharding = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [1, 1, *array.shape],
            "codecs": codecs,
            "index_codecs": [_bytes_codec("uint64"), {"name": "crc32c"}],
            "index_location": "end",
        },
    }
    document = _common([scenes, steps, *array.shape], [1, steps, *array.shape], ("scene", "step", *array.dims))
    fill = "NaN" if np.isnan(array.fill_value) else int(array.fill_value)
    return document | {"data_type": array.dtype, "fill_value": fill, "codecs": [sharding]}


def _valid_document(leading: tuple[int, int]) -> dict[str, Any]:
    scenes, steps = leading
    return _common([scenes, steps], [1, steps], ("scene", "step")) | {
        "data_type": "uint8",
        "fill_value": 0,
        "codecs": [_bytes_codec("uint8"), {"name": "crc32c"}],
        "attributes": {"description": "1 where the frame is cached, 0 where it is not; other arrays then read as fill"},
    }


def _common(shape: list[int], chunk_shape: list[int], dims: tuple[str, ...]) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk_shape}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "dimension_names": list(dims),
        "storage_transformers": [],
    }


def _bytes_codec(dtype: str) -> dict[str, Any]:
    if np.dtype(dtype).itemsize == 1:
        return {"name": "bytes"}
    return {"name": "bytes", "configuration": {"endian": "little"}}


def _zstd_codec() -> dict[str, Any]:
    return {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}}


def _attributes(spec: FeatureSpec, array: StoredArray, tier: Tier) -> dict[str, Any]:
    """Attributes for people and programs; ``_FillValue`` makes xarray read absent integers as NaN."""
    fill = {} if np.isnan(array.fill_value) else {"_FillValue": int(array.fill_value)}
    if array.name != spec.name:
        role = "scale" if array.name == spec.scale_array else "offset"
        return {"description": f"{role} of {spec.name}, one per frame and {', '.join(array.dims)}", **fill}
    return {
        "description": spec.description,
        "units": spec.units,
        "dequantise": _dequantisation(spec, tier),
        **fill,
    }


def _dequantisation(spec: FeatureSpec, tier: Tier) -> dict[str, Any]:
    """How floats come back, machine-readably and as one line; arrays broadcast by dimension name."""
    if not spec.is_scaled(tier):
        if spec.encoding == "unit":
            return {"kind": "unit", "divisor": UNIT_LIMIT, "formula": f"{spec.name} / {UNIT_LIMIT}"}
        return {"kind": "none", "formula": spec.name}
    formula = f"{spec.name} * {spec.scale_array}"
    described = {"kind": spec.encoding, "scale": spec.scale_array, "limit": INT8_LIMIT}
    if spec.encoding == "symmetric":
        return described | {"formula": formula}
    return described | {"offset": spec.offset_array, "formula": f"{formula} + {spec.offset_array}"}
