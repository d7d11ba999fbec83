"""Frames of BEVFormer-Base's size, in a cache written by the cache's own writer. The numbers are noise.

Nothing here is compressed, so what the numbers are changes no time.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cache.writing import CacheWriter, SceneSlot, open_for_writing
from detectors.catalogue import bevformer_base
from detectors.teacher_features import feature_specs
from schemas.bev_grid import BevGrid
from schemas.features import FeatureSpec, StoredArray
from schemas.frame_index import FRAME_SCHEMA
from schemas.manifest import DatasetIdentity, Manifest, TeacherIdentity
from train.clips import Clip

BASE_CELLS = 200
"""Rows and columns of Base's BEV grid."""

StoredFrame = Mapping[str, NDArray[Any]]


def base_specs(cells: int = BASE_CELLS, names: Sequence[str] = ()) -> tuple[FeatureSpec, ...]:
    """The features of BEVFormer-Base, on a smaller grid where ``cells`` says so; all of them when none is named."""
    specs = feature_specs(bevformer_base())
    return tuple(_resized(spec, cells) for spec in specs if not names or spec.name in names)


def base_manifest(specs: tuple[FeatureSpec, ...], cells: int = BASE_CELLS) -> Manifest:
    """A manifest of Base's shape that is nobody's teacher."""
    config = bevformer_base()
    return Manifest(
        teacher=TeacherIdentity(name="noise", architecture="noise", weights_sha256="0" * 64, untrained=True),
        preprocessing=config.preprocessing,
        precision="float32",
        dataset=DatasetIdentity(name="noise", version="v1.0-trainval", split="train", tables_sha256="0" * 64),
        features=specs,
        tier="int8",
        class_names=config.class_names,
        grid=BevGrid(rows=cells, cols=cells, extent_m=config.grid.extent_m),
        program_version="0",
        device="cpu",
    )


def slots_of(scenes: int, steps: int) -> tuple[SceneSlot, ...]:
    """A scene axis."""
    return tuple(SceneSlot(f"scene-{index:04d}", f"token-{index:04d}", steps) for index in range(scenes))


def rows_of(slot: SceneSlot) -> pa.Table:
    """Index rows of a scene that stands still."""
    still = np.eye(4).ravel().tolist()
    rows = [
        {
            "scene_name": slot.name,
            "scene_token": slot.token,
            "sample_token": f"{slot.name}-{step}",
            "step": step,
            "timestamp_us": 500_000 * step,
            "global_from_lidar": still,
            "previous_from_current": still,
            "has_previous": step > 0,
            "has_images": True,
            "has_labels": True,
        }
        for step in range(slot.length)
    ]
    return pa.Table.from_pylist(rows, schema=FRAME_SCHEMA)


def stored_frames(specs: Sequence[FeatureSpec], count: int, seed: int = 0) -> Iterator[StoredFrame]:
    """Frames as the int8 tier stores them."""
    stream = np.random.default_rng(seed)
    arrays = [array for spec in specs for array in spec.stored("int8")]
    for _ in range(count):
        yield {array.name: _noise(stream, array) for array in arrays}


def write_base_cache(path: Path, specs: tuple[FeatureSpec, ...], slots: Sequence[SceneSlot], cells: int) -> CacheWriter:
    """A cache with every scene committed."""
    writer = open_for_writing(path, base_manifest(specs, cells), slots)
    for seed, slot in enumerate(slots):
        with writer.scene(slot.name) as scene:
            for frame in stored_frames(specs, slot.length, seed):
                scene.append_stored(frame)
            scene.commit(rows_of(slot))
    return writer


def random_clips(slots: Sequence[SceneSlot], frames: int, seed: int, count: int | None = None) -> list[Clip]:
    """Clips that share no frame, in random order: a frame read twice would be warm the second time.

    Args:
        slots: the scenes.
        frames: consecutive keyframes in a clip.
        seed: of the order.
        count: most clips; None for all there are.
    """
    starts = [(slot, start) for slot in slots for start in range(0, slot.length - frames + 1, frames)]
    order = np.random.default_rng(seed).permutation(len(starts))[:count]
    return [_clip(*starts[index], frames) for index in order]


def _clip(slot: SceneSlot, start: int, frames: int) -> Clip:
    steps = tuple(range(start, start + frames))
    return Clip(slot.name, steps, tuple(f"{slot.name}-{step}" for step in steps))


def _resized(spec: FeatureSpec, cells: int) -> FeatureSpec:
    shape = tuple(cells if dim in ("y", "x") else size for dim, size in zip(spec.dims, spec.shape, strict=True))
    return spec.model_copy(update={"shape": shape})


def _noise(stream: np.random.Generator, array: StoredArray) -> NDArray[Any]:
    if array.dtype == "int8":
        return stream.integers(-127, 128, array.shape, dtype=np.int8)
    if array.dtype == "uint8":
        return stream.integers(0, 255, array.shape, dtype=np.uint8)
    return stream.random(array.shape, dtype=np.float32).astype(array.dtype)
