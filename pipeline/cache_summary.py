"""What a cache holds, in tables: its maker, arrays and bytes, the range of its values, and what never varies."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.reading import Cache
from pipeline.console import console, print_table
from pipeline.fidelity_table import print_fidelity
from schemas.features import CHECKSUM_BYTES, FeatureSpec

SAMPLED_FRAMES = 16
_NAMED_CHANNELS = 12


@dataclass(frozen=True)
class FeatureValues:
    """Values of one feature over some frames, dequantised.

    A channel is one index of the dimensions that have scales of their own, or of the last dimension where none has.

    Attributes:
        low, high: smallest and largest finite value.
        non_finite: how many values are not finite; a sound cache has none.
        channels: how many channels there are.
        dead: indices of the channels that have one value everywhere and always.
    """

    low: float
    high: float
    non_finite: int
    channels: int
    dead: tuple[tuple[int, ...], ...]


def print_summary(cache: Cache) -> None:
    """Print all tables; values are of evenly spread frames.

    Raises:
        CacheError: a frame that is read is damaged.
    """
    print_table(f"Cache {cache.path}", ("", ""), _facts(cache))
    print_table("Arrays", ("name", "a frame", "dtype", "bytes a frame", "bytes"), _array_rows(cache))
    tokens = sampled_tokens(cache)
    if not tokens:
        console.print("The cache holds no scene yet: there are no values to look at.")
        return
    header = ("feature", "smallest", "largest", "not finite", "dead channels")
    found = [(spec, feature_values(cache, spec, tokens)) for spec in cache.manifest.features]
    rows = [
        (spec.name, f"{it.low:.5g}", f"{it.high:.5g}", str(it.non_finite), f"{len(it.dead)} of {it.channels}")
        for spec, it in found
    ]
    print_table(f"Values, over {len(tokens)} of {cache.frames.num_rows} frames", header, rows)
    for spec, it in found:
        if it.dead:
            console.print(f"Dead in {spec.name} ({_channel_dims(spec)}): {_listed(it.dead)}", soft_wrap=True)
    fidelity = cache.fidelity()
    if fidelity is not None:
        print_fidelity(fidelity, "Fidelity, as measured when the cache was filled")


def sampled_tokens(cache: Cache, count: int = SAMPLED_FRAMES) -> list[str]:
    """Sample tokens of at most ``count`` frames, evenly spread over the cache, the first and the last among them."""
    rows = cache.frames.num_rows
    spread = np.unique(np.linspace(0, rows - 1, min(rows, count)).round().astype(int))
    tokens: list[str] = cache.frames["sample_token"].take(spread).to_pylist()
    return tokens


def feature_values(cache: Cache, spec: FeatureSpec, tokens: Sequence[str]) -> FeatureValues:
    """Range of a feature's values over some frames, and its dead channels.

    Args:
        cache: where to read.
        spec: the feature.
        tokens: at least one frame.
    """
    kept = tuple(spec.dims.index(dim) for dim in _channel_dims(spec).split(", "))
    rest = tuple(axis for axis in range(len(spec.dims)) if axis not in kept)
    lows, highs, non_finite = [], [], 0
    for token in tokens:
        values = cache.read(token, spec.name)
        finite = np.isfinite(values)
        non_finite += int(values.size - np.count_nonzero(finite))
        lows.append(values.min(axis=rest, where=finite, initial=np.inf))
        highs.append(values.max(axis=rest, where=finite, initial=-np.inf))
    low, high = np.min(lows, axis=0), np.max(highs, axis=0)
    dead = tuple(tuple(index) for index in np.argwhere(low == high).tolist())
    return FeatureValues(float(low.min()), float(high.max()), non_finite, int(low.size), dead)


def _facts(cache: Cache) -> list[tuple[str, str]]:
    manifest = cache.manifest
    grid = manifest.grid
    x_min, y_min, z_min, x_max, y_max, z_max = grid.extent_m
    return [
        ("teacher", manifest.teacher.name + (" (untrained)" if manifest.teacher.untrained else "")),
        ("weights", f"sha256 {manifest.teacher.weights_sha256[:16]}, {manifest.precision}"),
        ("data", f"{manifest.dataset.name} {manifest.dataset.version} {manifest.dataset.split}"),
        ("scenes", f"{len(cache.scene_names)} of {len(cache.all_scene_names)}"),
        ("frames", str(cache.frames.num_rows)),
        ("tier", manifest.tier),
        ("BEV grid", f"{grid.rows} × {grid.cols} cells of {grid.cell_m[1]:.4g} × {grid.cell_m[0]:.4g} m"),
        ("extent", f"x {x_min:g} to {x_max:g}, y {y_min:g} to {y_max:g}, z {z_min:g} to {z_max:g} m"),
        ("fingerprint", manifest.fingerprint[:16]),
    ]


def _array_rows(cache: Cache) -> list[tuple[str, ...]]:
    """One row an array, and the sum; bytes count the checksums behind the frames, but not files' indices."""
    rows, totals = [], []
    frames = max(cache.frames.num_rows, 1)
    for name, array in cache.arrays.items():
        payloads: list[NDArray[np.int64]] = [cache.shard(scene, name).nbytes for scene in cache.scene_names]
        total = sum(int(payload.sum()) + CHECKSUM_BYTES * len(payload) for payload in payloads)
        totals.append(total)
        rows.append(
            (name, " × ".join(map(str, array.shape)) or "–", array.dtype, _bytes(total / frames), _bytes(float(total)))
        )
    return [*rows, ("all", "", "", _bytes(sum(totals) / frames), _bytes(float(sum(totals))))]


def _channel_dims(spec: FeatureSpec) -> str:
    return ", ".join(spec.scale_dims or spec.dims[-1:])


def _listed(channels: Sequence[tuple[int, ...]]) -> str:
    names = ["/".join(map(str, channel)) for channel in channels[:_NAMED_CHANNELS]]
    more = f" and {len(channels) - len(names)} more" if len(channels) > len(names) else ""
    return ", ".join(names) + more


def _bytes(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"
