"""A cache as an xarray Dataset: named dimensions, coordinates that say which frame is which, floats read on demand."""

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from cache.frame_array import DecodedFrames

if TYPE_CHECKING:
    from cache.reading import Cache


class _LazyFeature(BackendArray):
    """What xarray asks when values are wanted: the index is all it has by then, so only those frames are read."""

    def __init__(self, frames: DecodedFrames, identity: str) -> None:
        self._frames, self.identity = frames, identity
        self.shape, self.dtype = frames.shape, frames.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        outer = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, outer, self._frames.__getitem__)


class _LazySelection(indexing.LazilyIndexedArray):
    """Names itself for dask, which would otherwise pickle the whole frame table to find a name."""

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (self.array.identity, *self.key.tuple)


def dataset_of(cache: "Cache") -> xr.Dataset:
    """Every feature over (scene, step, ...), float32, dequantised as it is indexed; NaN where nothing is cached.

    Coordinates: ``scene`` (names), ``sample_token`` and ``timestamp_us`` over (scene, step), empty and 0 where nothing
    is cached, ``valid`` (whether it is), ``y`` and ``x`` in metres at the cell centres, and ``class`` names.
    """
    manifest = cache.manifest
    features = {}
    for spec in manifest.features:
        frames = DecodedFrames(cache, spec.name)
        identity = " ".join([spec.name, str(cache.path), manifest.fingerprint, *cache.scene_names])
        lazy = _LazySelection(_LazyFeature(frames, identity))
        attributes = {"units": spec.units, "description": spec.description}
        features[spec.name] = xr.Variable(frames.dims, lazy, attributes)
    sizes = {dim: size for spec in manifest.features for dim, size in zip(spec.dims, spec.shape, strict=True)}
    return xr.Dataset(
        features,
        coords=_frame_coordinates(cache) | _feature_coordinates(cache, sizes),
        attrs={
            "teacher": manifest.teacher.name,
            "dataset": f"{manifest.dataset.name} {manifest.dataset.version} {manifest.dataset.split}",
            "tier": manifest.tier,
            "fingerprint": manifest.fingerprint,
        },
    )


def _frame_coordinates(cache: "Cache") -> dict[str, xr.Variable]:
    both = ("scene", "step")
    # The frames stand in the order of the axes, so they fall into the valid places one after the other.
    tokens = cache.frames["sample_token"].to_pylist()
    sample_token: NDArray[np.str_] = np.zeros(cache.valid.shape, dtype=f"<U{max(map(len, tokens), default=1)}")
    sample_token[cache.valid] = tokens
    timestamp_us = np.zeros(cache.valid.shape, dtype=np.int64)
    timestamp_us[cache.valid] = cache.frames["timestamp_us"].to_pylist()
    return {
        "scene": xr.Variable("scene", np.array(cache.all_scene_names)),
        "sample_token": xr.Variable(both, sample_token),
        "timestamp_us": xr.Variable(both, timestamp_us, {"units": "us"}),
        "valid": xr.Variable(both, cache.valid.copy(), {"description": "whether the frame is cached"}),
    }


def _feature_coordinates(cache: "Cache", sizes: dict[str, int]) -> dict[str, xr.Variable]:
    grid, class_names = cache.manifest.grid, np.array(cache.manifest.class_names)
    cell_x, cell_y = grid.cell_m
    x_m = grid.extent_m[0] + (np.arange(grid.cols) + 0.5) * cell_x
    y_m = grid.extent_m[1] + (np.arange(grid.rows) + 0.5) * cell_y
    found = {
        "y": xr.Variable("y", y_m, {"units": "m", "description": "cell centres, forward, LiDAR frame"}),
        "x": xr.Variable("x", x_m, {"units": "m", "description": "cell centres, to the right, LiDAR frame"}),
        "class": xr.Variable("class", class_names),
    }
    return {name: values for name, values in found.items() if sizes.get(name) == values.size}
