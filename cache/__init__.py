"""The teacher cache on disk: a plain Zarr v3 group, and the promises that plain Zarr does not make.

Write with ``cache.writing.open_for_writing``, read with ``cache.open_cache``; ``docs/format.md`` is the format.
"""

from cache.reading import Cache, open_cache

__all__ = ["Cache", "open_cache"]
