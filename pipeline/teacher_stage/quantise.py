"""Quantisation on the teacher's device: a quarter of the bytes crosses to the host, which has nothing to compute.

The arithmetic is that of ``cache/quantise.py``, operation by operation, so the bytes are the same wherever it runs.
Whether a value is fit to be stored shows in each feature's least and greatest value, which cross with the bytes and are
looked at on the host: the device is never waited for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.errors import CacheError
from schemas.features import INT8_LIMIT, UNIT_LIMIT, FeatureSpec, Tier

_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
_FLOAT16_LIMIT = float(np.finfo(np.float16).max)


@dataclass(frozen=True, eq=False)
class StoredFrame:
    """One frame as the cache stores it, on the device that computed it or on the host.

    Attributes:
        arrays: by stored array name.
        extremes: (features, 3) float32 in the specs' order: a feature's least and greatest value, NaN where it holds
            one; and its greatest scale, 0 where it has none, infinite where a channel is wider than float32 can hold.
    """

    arrays: Mapping[str, Tensor]
    extremes: Tensor

    def on_host(self) -> dict[str, NDArray[Any]]:
        """The arrays as NumPy sees them; they must be on the host already."""
        return {name: array.numpy() for name, array in self.arrays.items()}


def quantise(specs: Sequence[FeatureSpec], features: Mapping[str, object], tier: Tier) -> StoredFrame:
    """One frame's features as they are stored.

    Args:
        specs: the features to keep.
        features: floats by feature name, in the shapes of the specs; others are ignored.
        tier: storage tier of the cache.

    Raises:
        CacheError: a feature is absent, has another shape, or is not made of floats.
    """
    arrays: dict[str, Tensor] = {}
    extremes = []
    for spec in specs:
        values = promised(spec, features)
        stored = _stored(spec, values, tier)
        low, high = values.aminmax()
        scale = stored[spec.scale_array].max() if spec.is_scaled(tier) else torch.zeros_like(low)
        extremes.append(torch.stack([low, high, scale]))
        arrays |= stored
    return StoredFrame(arrays, torch.stack([row.to(extremes[0].device) for row in extremes]))


def refuse_unfit(specs: Sequence[FeatureSpec], frame: StoredFrame, tier: Tier) -> None:
    """Check a frame that has reached the host.

    Raises:
        CacheError: a feature holds NaN or infinity, or reaches beyond what its encoding can hold.
    """
    for spec, (low, high, scale) in zip(specs, frame.extremes.tolist(), strict=True):
        if not (np.isfinite(low) and np.isfinite(high)):
            raise CacheError(
                f"{spec.name} holds values that are NaN or infinite (it reaches from {low} to {high}); nothing "
                "non-finite is ever stored. Look at the teacher's weights and precision"
            )
        if spec.encoding == "unit" and (_unit_step(low) < 0 or _unit_step(high) > UNIT_LIMIT):
            raise CacheError(f"{spec.name} reaches from {low:g} to {high:g}, expected weights from 0 to 1")
        if not np.isfinite(scale):
            raise CacheError(f"{spec.name} reaches from {low:g} to {high:g}: wider than float32 can hold")
        halves = spec.encoding == "float16" or (spec.encoding == "affine" and not spec.is_scaled(tier))
        if halves and max(-low, high) > _FLOAT16_LIMIT:
            raise CacheError(
                f"{spec.name} reaches from {low:g} to {high:g}, but float16 ends at ±{_FLOAT16_LIMIT:g}: "
                "scale the feature down in the teacher, or choose another encoding or tier"
            )


def _unit_step(value: float) -> float:
    with np.errstate(over="ignore"):  # infinite is outside as well
        return float(np.rint(np.float32(value) * np.float32(UNIT_LIMIT)))


def promised(spec: FeatureSpec, features: Mapping[str, object]) -> Tensor:
    """A feature in float32, which may share the teacher's memory.

    Raises:
        CacheError: it is absent, has another shape, or is not made of floats.
    """
    if spec.name not in features:
        raise CacheError(f"the teacher gave no {spec.name}, which its specs promise; it gave {sorted(features)}")
    values = features[spec.name]
    if not isinstance(values, Tensor) or not values.is_floating_point():
        found = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise CacheError(f"{spec.name} is {found}, expected a tensor of floating point numbers")
    if tuple(values.shape) != spec.shape:
        raise CacheError(f"{spec.name} has shape {tuple(values.shape)}, expected {spec.shape} {spec.dims}")
    return values.detach().float()


def _stored(spec: FeatureSpec, values: Tensor, tier: Tier) -> dict[str, Tensor]:
    if spec.is_scaled(tier):
        return _scaled(spec, values)
    if spec.encoding == "unit":
        return {spec.name: (values * UNIT_LIMIT).round_().clamp_(0, UNIT_LIMIT).to(torch.uint8).contiguous()}
    if spec.encoding == "float32":  # a copy, as the teacher may use its memory again before the frame is written
        return {spec.name: values.clone(memory_format=torch.contiguous_format)}
    return {spec.name: values.half().contiguous()}


def _scaled(spec: FeatureSpec, values: Tensor) -> dict[str, Tensor]:
    others = [number for number, dim in enumerate(spec.dims) if dim not in spec.scale_dims]
    shape = [size if dim in spec.scale_dims else 1 for dim, size in zip(spec.dims, spec.shape, strict=True)]
    low, high = (values.amin(others), values.amax(others)) if others else (values, values)  # none would mean all
    if spec.encoding == "affine":
        span = high - low
        scale, offset = _divided(span, 2 * INT8_LIMIT), low + 0.5 * span
    else:
        scale, offset = _divided(torch.maximum(-low, high), INT8_LIMIT), None
    scale = torch.where(scale < _SMALLEST_SCALE, torch.ones_like(scale), scale)
    centred = values if offset is None else values - offset.reshape(shape)
    whole = (centred / scale.reshape(shape)).round_().clamp_(-INT8_LIMIT, INT8_LIMIT)
    arrays = {spec.name: whole.to(torch.int8).contiguous(), spec.scale_array: scale.contiguous()}
    if offset is not None:
        arrays[spec.offset_array] = offset.contiguous()
    return arrays


def _divided(values: Tensor, divisor: int) -> Tensor:
    """The correctly rounded quotient. By a plain number, CUDA multiplies with the rounded reciprocal instead."""
    return values / torch.full_like(values, divisor)
