"""A cache as arrays over (scene, step, ...) that read the frames an index asks for, and no others.

What has a place on the scene axis but is not cached yet reads as the fill value, as in every Zarr library: look at
``Cache.valid`` before believing it. ``Cache.read`` refuses instead.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cache.reading import Cache


class FrameArray(ABC):
    """What dask and xarray index. It may be pickled, and used from threads.

    Attributes:
        name: of the stored array or the feature.
        dims: names of all dimensions.
        shape: their sizes.
        dtype: of an element.
    """

    def __init__(self, cache: "Cache", name: str, dims: tuple[str, ...], frame: NDArray[Any]) -> None:
        """``frame`` is what an absent frame reads as; it gives shape and dtype."""
        self.name = name
        self.dims = ("scene", "step", *dims)
        self.shape = (*cache.valid.shape, *frame.shape)
        self.dtype = frame.dtype
        self._cache, self._absent = cache, frame
        self._scene_names = cache.all_scene_names

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __getitem__(self, key: tuple[Any, ...]) -> NDArray[Any]:
        """Read what ``key`` selects.

        Args:
            key: one index a dimension. A number drops its dimension; slices and one-dimensional arrays of numbers
                cross, as in ``np.ix_``.

        Raises:
            CacheError: a frame is damaged.
        """
        assert len(key) == self.ndim, (self.name, key)
        scenes, steps = (np.atleast_1d(np.arange(self.shape[axis])[key[axis]]) for axis in (0, 1))
        if len(scenes) == len(steps) == 1:  # the frame as it was decoded, without another copy
            values = self._part(int(scenes[0]), int(steps[0]), key[2:])[None, None]
        else:
            part = _crossed(self._absent, key[2:])
            values = np.empty((len(scenes), len(steps), *part.shape), dtype=self.dtype)
            for i, j in np.ndindex(len(scenes), len(steps)):
                values[i, j] = self._part(int(scenes[i]), int(steps[j]), key[2:])
        return values.squeeze(tuple(axis for axis in (0, 1) if isinstance(key[axis], int | np.integer)))

    def _part(self, scene: int, step: int, key: tuple[Any, ...]) -> NDArray[Any]:
        if self._cache.valid[scene, step]:
            return _crossed(self._frame(self._scene_names[scene], step), key)
        return _crossed(self._absent, key).copy()

    @abstractmethod
    def _frame(self, scene_name: str, step: int) -> NDArray[Any]:
        """One cached frame, verified."""


class StoredFrames(FrameArray):
    """The numbers as they are stored; fill values where nothing is."""

    def __init__(self, cache: "Cache", array_name: str) -> None:
        array = cache.arrays[array_name]
        fill = np.array(array.fill_value).astype(array.dtype)
        super().__init__(cache, array_name, array.dims, np.broadcast_to(fill, array.shape))

    def _frame(self, scene_name: str, step: int) -> NDArray[Any]:
        return self._cache.shard(scene_name, self.name).read(step)


class DecodedFrames(FrameArray):
    """A feature as float32; NaN where nothing is."""

    def __init__(self, cache: "Cache", feature_name: str) -> None:
        spec = cache.manifest.feature(feature_name)
        super().__init__(cache, feature_name, spec.dims, np.broadcast_to(np.float32(np.nan), spec.shape))

    def _frame(self, scene_name: str, step: int) -> NDArray[Any]:
        return self._cache.read_step(scene_name, step, self.name)


def _crossed(values: NDArray[Any], key: tuple[Any, ...]) -> NDArray[Any]:
    """``values[key]`` with every index applied to its own dimension; from the last, so that none shifts another."""
    for axis in reversed(range(len(key))):
        values = values[(*[slice(None)] * axis, key[axis])]
    return values
