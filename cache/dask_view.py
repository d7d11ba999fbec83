"""A stored array as a dask array, one chunk a frame."""

from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from dask.base import tokenize

from cache.frame_array import StoredFrames
from cache.layout import VALID

if TYPE_CHECKING:
    from cache.reading import Cache


def dask_array(cache: "Cache", array_name: str) -> Any:
    """The stored numbers of one array, over (scene, step, ...), read and verified chunk by chunk.

    Args:
        cache: the cache.
        array_name: one of ``cache.arrays``, or ``valid``.

    Raises:
        CacheError: there is no such array.
    """
    from_array: Any = da.from_array  # dask's functions have no types
    if array_name == VALID:
        return from_array(cache.valid.astype(np.uint8), chunks=(1, -1))
    cache.require_array(array_name)
    frames = StoredFrames(cache, array_name)
    token = tokenize(str(cache.path), cache.manifest.fingerprint, cache.scene_names, array_name)
    return from_array(
        frames,
        chunks=(1, 1, *frames.shape[2:]),
        name=f"{array_name}-{token}",
        asarray=False,
        # The array is one task that all chunks name, so dask drops the chunks nobody wants before looking into them.
        inline_array=False,
        meta=np.empty((0,) * frames.ndim, dtype=frames.dtype),
    )
