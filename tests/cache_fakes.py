"""A small cache to write and read: five features that use every encoding, three scenes of unequal length."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cache.writing import CacheWriter, SceneSlot, open_for_writing
from schemas.bev_grid import BevGrid
from schemas.features import FeatureSpec, Tier
from schemas.frame_index import FRAME_SCHEMA
from schemas.manifest import DatasetIdentity, Manifest, TeacherIdentity
from schemas.preprocessing import Preprocessing

SPECS = (
    FeatureSpec(
        name="bev",
        dims=("y", "x", "channel"),
        shape=(4, 5, 6),
        encoding="affine",
        scale_dims=("channel",),
        description="BEV features of the last encoder layer.",
    ),
    FeatureSpec(
        name="temporal_offsets",
        dims=("y", "x", "head", "axis"),
        shape=(4, 5, 2, 2),
        encoding="symmetric",
        scale_dims=("head", "axis"),
        scale_name="temporal_scale",
        units="cell",
        description="Sampling offsets.",
    ),
    FeatureSpec(
        name="temporal_weights", dims=("y", "x", "head"), shape=(4, 5, 2), encoding="unit", description="Weights."
    ),
    FeatureSpec(
        name="query_features", dims=("query", "channel"), shape=(7, 6), encoding="float16", description="Queries."
    ),
    FeatureSpec(name="query_boxes", dims=("query", "code"), shape=(7, 10), encoding="float32", description="Boxes."),
)
SLOTS = (
    SceneSlot("scene-0001", "token-1", 3),
    SceneSlot("scene-0002", "token-2", 5),
    SceneSlot("scene-0003", "t-3", 1),
)

Features = dict[str, NDArray[Any]]


def manifest_of(specs: tuple[FeatureSpec, ...] = SPECS, tier: Tier = "int8") -> Manifest:
    return Manifest(
        teacher=TeacherIdentity(name="fake", architecture='{"layers": 6}', weights_sha256="ab" * 32, untrained=False),
        preprocessing=Preprocessing(color_order="rgb", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        precision="float32",
        dataset=DatasetIdentity(name="synthetic", version="v1.0-mini", split="mini_train", tables_sha256="1" * 64),
        features=specs,
        tier=tier,
        class_names=("car", "bus"),
        grid=BevGrid(rows=4, cols=5, extent_m=(-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)),
        program_version="0",
        device="cpu",
    )


def rows_of(slot: SceneSlot, count: int | None = None) -> pa.Table:
    rows = [
        {
            "scene_name": slot.name,
            "scene_token": slot.token,
            "sample_token": token_of(slot, step),
            "step": step,
            "timestamp_us": 500_000 * step,
            "global_from_lidar": np.eye(4).ravel().tolist(),
            "previous_from_current": np.eye(4).ravel().tolist(),
            "has_previous": step > 0,
            "has_images": True,
            "has_labels": True,
        }
        for step in range(slot.length if count is None else count)
    ]
    return pa.Table.from_pylist(rows, schema=FRAME_SCHEMA)


def token_of(slot: SceneSlot, step: int) -> str:
    return f"{slot.name}-sample-{step}"


def features_of(slot: SceneSlot, step: int, specs: Sequence[FeatureSpec] = SPECS, seed: int = 0) -> Features:
    """The same floats for the same scene, step and seed, in every process."""
    stream = np.random.default_rng([seed, step, *slot.name.encode()])
    return {
        spec.name: (
            stream.random(spec.shape, dtype=np.float32)
            if spec.encoding == "unit"
            else 3 * stream.standard_normal(spec.shape, dtype=np.float32) + 1
        )
        for spec in specs
    }


def write_scene(writer: CacheWriter, slot: SceneSlot, seed: int = 0) -> bool:
    with writer.scene(slot.name) as scene:
        for step in range(slot.length):
            scene.append(features_of(slot, step, writer.manifest.features, seed))
        return scene.commit(rows_of(slot))


def write_cache(path: Path, slots: Sequence[SceneSlot] = SLOTS, tier: Tier = "int8") -> CacheWriter:
    """A cache with places for ``SLOTS``, of which ``slots`` are written."""
    writer = open_for_writing(path, manifest_of(tier=tier), SLOTS)
    for slot in slots:
        write_scene(writer, slot)
    return writer


def tolerance(spec: FeatureSpec, values: NDArray[Any], tier: Tier) -> float:
    """Half a quantisation step of the coarsest scale, plus the rounding of float32."""
    reach = float(np.abs(values).max())
    if spec.is_scaled(tier):
        return float(np.ptp(values)) / 254 if spec.encoding == "affine" else reach / 254 * 1.0001
    if spec.encoding == "unit":
        return 0.5 / 254 + 1e-6
    return 0.0 if spec.encoding == "float32" else reach * 2.0**-11
