"""From a teacher's floats to what is stored, and back. ``schemas/features.py`` lists the encodings.

All arithmetic is float32, each operation correctly rounded, in exactly this order, so that another implementation
(on a GPU, say) can give identical bytes:

    affine      span = max − min;  scale = span / 254;  offset = min + 0.5 · span
                stored = rint((x − offset) / scale), clipped to ±127
    symmetric   scale = max|x| / 127;  stored = rint(x / scale), clipped to ±127
    unit        stored = rint(x · 254), refused outside 0..254

with ``rint`` rounding halves to even and min, max taken over one frame and one index of ``scale_dims``. A scale below
the smallest normal float32 (a constant channel) becomes 1: such a channel stores 0 and, if affine, its value as offset.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import CacheError
from schemas.features import INT8_LIMIT, UNIT_FILL, UNIT_LIMIT, FeatureSpec, Tier

_SMALLEST_SCALE = np.finfo(np.float32).tiny
_FLOAT16_LIMIT = float(np.finfo(np.float16).max)
_BLOCK_ELEMENTS = 1 << 16
"""Quantisation takes several passes; blocks of 256 KiB keep all but the first in the processor's cache."""


def encode(spec: FeatureSpec, values: NDArray[Any], tier: Tier) -> dict[str, NDArray[Any]]:
    """One frame of one feature as it is stored.

    Args:
        spec: the feature.
        values: ``spec.shape``, any float dtype; every value finite.
        tier: storage tier of the cache.

    Returns:
        Stored array name to contiguous array, in the shapes and dtypes of ``spec.stored(tier)``.

    Raises:
        CacheError: wrong shape or dtype, NaN or infinity, or a value its encoding cannot hold.
    """
    numbers = _as_float32(spec, values)
    if spec.is_scaled(tier):
        return _encode_scaled(spec, numbers)
    low, high = float(numbers.min()), float(numbers.max())
    _refuse_non_finite(spec, numbers, low, high)
    if spec.encoding == "unit":
        return {spec.name: _encode_unit(spec, numbers, low, high)}
    if spec.encoding == "float32":
        return {spec.name: np.ascontiguousarray(numbers)}
    if max(-low, high) > _FLOAT16_LIMIT:
        raise CacheError(
            f"{spec.name} reaches from {low:g} to {high:g}, but float16 ends at ±{_FLOAT16_LIMIT:g}: "
            "scale the feature down in the teacher, or choose another encoding or tier"
        )
    return {spec.name: np.ascontiguousarray(numbers, dtype=np.float16)}


def decode(spec: FeatureSpec, stored: Mapping[str, NDArray[Any]], tier: Tier) -> NDArray[np.float32]:
    """One frame of one feature as floats again; fill values decode to NaN.

    Args:
        spec: the feature.
        stored: stored array name to array, as ``encode`` gives them.
        tier: storage tier of the cache.

    Returns:
        ``spec.shape`` float32.
    """
    values = stored[spec.name]
    if spec.is_scaled(tier):
        return _decode_scaled(spec, stored)
    if spec.encoding == "unit":
        numbers: NDArray[np.float32] = np.divide(values, np.float32(UNIT_LIMIT), dtype=np.float32)
        numbers[values == UNIT_FILL] = np.nan
        return numbers
    return values.astype(np.float32)


def _as_float32(spec: FeatureSpec, values: NDArray[Any]) -> NDArray[np.float32]:
    if values.shape != spec.shape:
        raise CacheError(f"{spec.name} has shape {values.shape}, expected {spec.shape} {spec.dims}")
    if values.dtype.kind != "f":
        raise CacheError(f"{spec.name} has dtype {values.dtype}, expected floating point numbers")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which is refused by name below
        return values.astype(np.float32, copy=False)


def _encode_scaled(spec: FeatureSpec, numbers: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    matrix = _scale_dims_last(spec, numbers).reshape(-1, int(np.prod(spec.scale_shape)))
    low, high = _column_extremes(matrix)
    _refuse_non_finite(spec, numbers, float(low.min()), float(high.max()))
    if spec.encoding == "affine":
        with np.errstate(over="ignore"):
            span = high - low
        if not np.isfinite(span).all():
            raise CacheError(f"{spec.name} reaches from {low.min():g} to {high.max():g}: wider than float32 can hold")
        scale, offset = span / np.float32(2 * INT8_LIMIT), low + np.float32(0.5) * span
    else:
        scale, offset = np.maximum(-low, high) / np.float32(INT8_LIMIT), np.zeros_like(low)
    scale[scale < _SMALLEST_SCALE] = 1.0
    stored = _quantised(matrix, scale, offset, _needs_clipping(low, high, scale, offset))
    arrays: dict[str, NDArray[Any]] = {
        spec.name: _scale_dims_home(spec, stored),
        spec.scale_array: scale.reshape(spec.scale_shape),
    }
    if spec.encoding == "affine":
        arrays[spec.offset_array] = offset.reshape(spec.scale_shape)
    return arrays


def _column_extremes(matrix: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Least and greatest of each column, NaN where it holds one; one pass over memory."""
    low, high = matrix[0].copy(), matrix[0].copy()
    for block in _row_blocks(matrix):
        np.minimum(low, block.min(axis=0), out=low)
        np.maximum(high, block.max(axis=0), out=high)
    return low, high


def _quantised(
    matrix: NDArray[np.float32], scale: NDArray[np.float32], offset: NDArray[np.float32], clip: bool
) -> NDArray[np.int8]:
    stored = np.empty(matrix.shape, dtype=np.int8)
    for block, target in zip(_row_blocks(matrix), _row_blocks(stored), strict=True):
        work = np.subtract(block, offset)
        np.divide(work, scale, out=work)
        np.rint(work, out=work)
        if clip:
            np.clip(work, -INT8_LIMIT, INT8_LIMIT, out=work)
        np.copyto(target, work, casting="unsafe")
    return stored


def _needs_clipping(
    low: NDArray[np.float32], high: NDArray[np.float32], scale: NDArray[np.float32], offset: NDArray[np.float32]
) -> bool:
    """Whether rounding carries any value beyond ±127. Rounded arithmetic is monotone, so the extremes tell."""
    with np.errstate(over="ignore"):
        reach = np.maximum(np.abs(np.rint((low - offset) / scale)), np.abs(np.rint((high - offset) / scale)))
    return bool(reach.max() > INT8_LIMIT)


def _encode_unit(spec: FeatureSpec, numbers: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    with np.errstate(over="ignore"):  # infinite is outside as well
        steps = np.rint(np.array([low, high], dtype=np.float32) * np.float32(UNIT_LIMIT))
    if steps[0] < 0 or steps[1] > UNIT_LIMIT:
        raise CacheError(f"{spec.name} reaches from {low:g} to {high:g}, expected weights from 0 to 1")
    flat = np.ascontiguousarray(numbers).reshape(-1, 1)
    stored = np.empty(flat.shape, dtype=np.uint8)
    for block, target in zip(_row_blocks(flat), _row_blocks(stored), strict=True):
        work = np.multiply(block, np.float32(UNIT_LIMIT))
        np.copyto(target, np.rint(work, out=work), casting="unsafe")
    return stored.reshape(spec.shape)


def _decode_scaled(spec: FeatureSpec, stored: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    matrix = _scale_dims_last(spec, stored[spec.name]).reshape(-1, int(np.prod(spec.scale_shape)))
    scale = stored[spec.scale_array].reshape(-1)
    offset = stored[spec.offset_array].reshape(-1) if spec.encoding == "affine" else None
    numbers = np.empty(matrix.shape, dtype=np.float32)
    for block, target in zip(_row_blocks(matrix), _row_blocks(numbers), strict=True):
        np.multiply(block, scale, out=target)
        if offset is not None:
            np.add(target, offset, out=target)
    return _scale_dims_home(spec, numbers)


def _row_blocks(matrix: NDArray[Any]) -> list[NDArray[Any]]:
    rows = max(1, _BLOCK_ELEMENTS // matrix.shape[1])
    return [matrix[start : start + rows] for start in range(0, len(matrix), rows)]


def _scale_dims_last(spec: FeatureSpec, values: NDArray[Any]) -> NDArray[Any]:
    axes = [spec.dims.index(dim) for dim in spec.scale_dims]
    return np.moveaxis(values, axes, range(-len(axes), 0))


def _scale_dims_home(spec: FeatureSpec, matrix: NDArray[Any]) -> NDArray[Any]:
    """The inverse of ``_scale_dims_last`` and its flattening, contiguous."""
    axes = [spec.dims.index(dim) for dim in spec.scale_dims]
    others = [size for dim, size in zip(spec.dims, spec.shape, strict=True) if dim not in spec.scale_dims]
    moved = matrix.reshape(*others, *spec.scale_shape)
    return np.ascontiguousarray(np.moveaxis(moved, range(-len(axes), 0), axes))


def _refuse_non_finite(spec: FeatureSpec, numbers: NDArray[np.float32], low: float, high: float) -> None:
    """NaN and infinity show in the extremes, so the search for their place costs nothing until there is one."""
    if np.isfinite(low) and np.isfinite(high):
        return
    bad = np.argwhere(~np.isfinite(numbers))
    place = ", ".join(f"{dim} {index}" for dim, index in zip(spec.dims, bad[0], strict=True))
    raise CacheError(
        f"{spec.name} holds {len(bad)} values that are NaN or infinite, the first at {place}; "
        "nothing non-finite is ever stored"
    )
