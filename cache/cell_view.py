"""Some BEV cells of a frame as floats."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cache.cell_reading import CellSelection, read_selection
from cache.quantise import decode
from schemas.errors import CacheError
from schemas.features import FeatureSpec, Tier

if TYPE_CHECKING:
    from cache.reading import Cache


def cells_of(
    cache: "Cache", place: tuple[str, int], spec: FeatureSpec, cells: NDArray[Any], *, verify: bool
) -> NDArray[np.float32]:
    """What ``Cache.read_cells`` gives, for a frame named by scene and step."""
    _require_map(spec)
    (scene_name, step), tier = place, cache.manifest.tier
    selection, which = CellSelection.of_cells((spec.shape[0], spec.shape[1]), cells)
    values, *scales = (cache.shard(scene_name, array.name) for array in spec.stored(tier))
    if verify:
        found = values.read(step).reshape(-1, *spec.shape[2:])[selection.flat]
    else:
        found = np.empty((len(selection.flat), *spec.shape[2:]), dtype=values.dtype)
        read_selection(values, step, selection, found)
    stored = {scale.array.name: scale.read(step) for scale in scales}
    return _decoded(spec, {spec.name: found, **stored}, tier)[which]


def _decoded(spec: FeatureSpec, stored: Mapping[str, NDArray[Any]], tier: Tier) -> NDArray[np.float32]:
    """Floats of some cells of a feature.

    Args:
        spec: the feature.
        stored: its arrays by name: values ``(n, ...)`` by cell, scales and offsets of the whole frame.
        tier: storage tier of the cache.

    Returns:
        ``(n, *spec.shape[2:])`` float32.
    """
    cells = stored[spec.name].shape[0]
    if cells == 0:
        return np.empty((0, *spec.shape[2:]), dtype=np.float32)
    listed = spec.model_copy(update={"dims": ("cell", *spec.dims[2:]), "shape": (cells, *spec.shape[2:])})
    return decode(listed, stored, tier)


def _require_map(spec: FeatureSpec) -> None:
    """Refuse a feature that is no map, or that cannot be decoded cell by cell.

    Raises:
        CacheError: tells its dimensions.
    """
    if spec.dims[:2] != ("y", "x") or {"y", "x"} & set(spec.scale_dims):
        raise CacheError(
            f"{spec.name} has the dimensions {spec.dims} with scales over {spec.scale_dims}; cells can be read of "
            "features that begin with (y, x) and have no scale of their own for each cell. Use read"
        )
