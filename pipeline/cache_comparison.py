"""Two caches compared: their manifests, their scenes, and frame by frame what they store."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pyarrow import compute

from cache.manifest_check import readable_fields
from cache.reading import Cache
from pipeline.teacher_stage.feature_error import FeatureError
from schemas.features import FeatureSpec
from schemas.fidelity import FeatureFidelity
from schemas.manifest import Manifest, differing_fields


class FeatureDifference:
    """How far one feature of this cache is from the other's, over the frames added so far.

    Attributes:
        name: of the feature, and the grid where it was averaged to one.
        frames: how many were compared.
        same, values: stored values that are equal, and all; 0 values where the two are stored in different forms.
    """

    def __init__(self, spec: FeatureSpec, name: str) -> None:
        self.name = name
        self.frames = self.same = self.values = 0
        self._error = FeatureError(spec)

    def add(self, ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> None:
        """Count one frame's dequantised values, of one shape."""
        self._error.add(live=torch.from_numpy(theirs), cached=torch.from_numpy(ours))
        self.frames += 1

    def add_stored(self, ours: NDArray[Any], theirs: NDArray[Any]) -> None:
        """Count one frame's stored values, of one form."""
        self.same += int(np.count_nonzero(ours == theirs))
        self.values += ours.size

    @property
    def error(self) -> FeatureFidelity:
        """The errors over all frames together, the other cache in the place of the live values."""
        return self._error.result()


@dataclass(frozen=True)
class Comparison:
    """Two caches side by side.

    Attributes:
        manifest: (dotted field, ours, theirs) for each difference.
        only_ours, only_theirs: scenes that one cache alone holds.
        scenes: those compared frame by frame.
        features: one entry for each feature that could be compared.
        incomparable: a line for each feature that is not of one form.
        other_bytes: scenes whose stored bytes differ.
    """

    manifest: tuple[tuple[str, Any, Any], ...]
    only_ours: tuple[str, ...]
    only_theirs: tuple[str, ...]
    scenes: tuple[str, ...]
    features: tuple[FeatureDifference, ...]
    incomparable: tuple[str, ...]
    other_bytes: tuple[str, ...]

    @property
    def identical(self) -> bool:
        """Whether manifest, scenes and every stored byte of them agree."""
        return not (self.manifest or self.only_ours or self.only_theirs or self.incomparable or self.other_bytes)


def common_scenes(ours: Cache, theirs: Cache, asked: Sequence[str]) -> tuple[str, ...]:
    """Scenes that both caches hold, in our order.

    Args:
        ours: this cache.
        theirs: the other.
        asked: scenes to narrow down to; all when empty.

    Raises:
        CacheError: a scene asked for is in one cache only, or in none.
    """
    for cache in (ours, theirs):
        cache.require_scenes(asked)
    present = set(theirs.scene_names)
    return tuple(name for name in asked or ours.scene_names if name in present)


def compare_caches(
    ours: Cache, theirs: Cache, scenes: Sequence[str], on_frame: Callable[[], None], *, narrowed: bool = False
) -> Comparison:
    """Compare manifests, and every frame of some scenes.

    Args:
        ours: this cache.
        theirs: the other, which errors are relative to.
        scenes: as ``common_scenes`` gives them.
        on_frame: called after every frame.
        narrowed: a person named the scenes, so the others do not count.

    Raises:
        CacheError: a frame is damaged.
    """
    common, incomparable = _comparable(ours.manifest, theirs.manifest)
    found = {spec.name: FeatureDifference(spec, _label(spec, ours.manifest, theirs.manifest)) for spec in common}
    other_bytes = []
    for scene in scenes:
        pairs = list(zip(tokens_of(ours, scene), tokens_of(theirs, scene), strict=False))
        same = tokens_of(ours, scene) == tokens_of(theirs, scene)
        for step, (token, other_token) in enumerate(pairs):
            if token == other_token:
                for spec in common:
                    same &= _add_frame(found[spec.name], (ours, theirs), (scene, step, token), spec)
            on_frame()
        if not same:
            other_bytes.append(scene)
    return Comparison(
        manifest=tuple(differing_fields(readable_fields(ours.manifest), readable_fields(theirs.manifest))),
        only_ours=() if narrowed else tuple(sorted(set(ours.scene_names) - set(theirs.scene_names))),
        only_theirs=() if narrowed else tuple(sorted(set(theirs.scene_names) - set(ours.scene_names))),
        scenes=tuple(scenes),
        features=tuple(found.values()),
        incomparable=incomparable,
        other_bytes=tuple(other_bytes),
    )


def _add_frame(
    difference: FeatureDifference, caches: tuple[Cache, Cache], place: tuple[str, int, str], spec: FeatureSpec
) -> bool:
    """Count one frame of one feature; returns whether everything stored of it is the same, scales included."""
    (ours, theirs), (scene, step, token) = caches, place
    difference.add(*at_coarser_grid(ours.read(token, spec.name), theirs.read(token, spec.name)))
    forms = [cache.manifest.feature(spec.name).stored(cache.manifest.tier) for cache in caches]
    if [(array.shape, array.dtype) for array in forms[0]] != [(array.shape, array.dtype) for array in forms[1]]:
        return False
    stored = [[cache.shard(scene, array.name).read(step) for array in forms[0]] for cache in caches]
    difference.add_stored(stored[0][0], stored[1][0])
    return all(left.tobytes() == right.tobytes() for left, right in zip(*stored, strict=True))


def at_coarser_grid(
    ours: NDArray[np.float32], theirs: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two maps (rows, cols, ...), the finer averaged over areas so that both have one shape; other arrays as they are.

    Raises:
        ValueError: neither shape is a whole multiple of the other.
    """
    if ours.shape == theirs.shape:
        return ours, theirs
    if ours.size < theirs.size:
        return ours, _averaged(theirs, ours.shape)
    return _averaged(ours, theirs.shape), theirs


def _averaged(values: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    rows, cols, *rest = shape
    blocks = values.reshape(rows, values.shape[0] // rows, cols, values.shape[1] // cols, *rest)
    means: NDArray[np.float32] = blocks.mean(axis=(1, 3))
    return means


def _comparable(ours: Manifest, theirs: Manifest) -> tuple[list[FeatureSpec], tuple[str, ...]]:
    """Features that can be compared, and a line about each that has not one shape in both."""
    left, right = ({spec.name: spec for spec in manifest.features} for manifest in (ours, theirs))
    common, lines = [], []
    for name in sorted(left.keys() | right.keys(), key=[*left, *right].index):
        if name not in left or name not in right:
            lines.append(f"{name} is only in {'the other cache' if name in right else 'this cache'}")
            continue
        if left[name].shape != right[name].shape:
            shapes = [" × ".join(map(str, specs[name].shape)) for specs in (left, right)]
            averages = _averages(left[name], right[name]) and ours.grid.extent_m == theirs.grid.extent_m
            lines.append(
                f"{name} is {shapes[0]} in this cache and {shapes[1]} in the other: "
                + ("compared as averages over the coarser grid's cells" if averages else "not compared")
            )
            if not averages:
                continue
        common.append(left[name])
    return common, tuple(lines)


def _averages(ours: FeatureSpec, theirs: FeatureSpec) -> bool:
    """Whether two features are maps of the same channels, one grid a whole multiple of the other."""
    if ours.dims != theirs.dims or ours.dims != ("y", "x", "channel") or ours.shape[2] != theirs.shape[2]:
        return False
    pairs = list(zip(ours.shape[:2], theirs.shape[:2], strict=True))
    return all(left % right == 0 for left, right in pairs) or all(right % left == 0 for left, right in pairs)


def _label(spec: FeatureSpec, ours: Manifest, theirs: Manifest) -> str:
    shapes = [manifest.feature(spec.name).shape for manifest in (ours, theirs)]
    rows, cols = min(shapes)[:2]
    return spec.name if shapes[0] == shapes[1] else f"{spec.name} at {rows} × {cols}"


def tokens_of(cache: Cache, scene: str) -> list[str]:
    """The scene's sample tokens in time order."""
    of_scene = cache.frames.filter(compute.equal(cache.frames["scene_name"], scene))
    tokens: list[str] = of_scene["sample_token"].to_pylist()
    return tokens
