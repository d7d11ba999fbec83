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
        extremes: (features, 2) float32, least and greatest value of each feature in the specs' order; NaN where a
            feature holds one.
    """

    arrays: Mapping[str, Tensor]
    extremes: Tensor

    def on_host(self) -> dict[str, NDArray[Any]]:
        """The arrays as NumPy sees them; they must be on the host already."""
        return {name: array.numpy() for name, array in self.arrays.items()}


def quantise(specs: Sequence[FeatureSpec], features: Mapping[str, Tensor], tier: Tier) -> StoredFrame:
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
        values = _checked(spec, features)
        extremes.append(torch.stack(values.aminmax()))
        arrays |= _stored(spec, values, tier)
    return StoredFrame(arrays, torch.stack([pair.to(extremes[0].device) for pair in extremes]))


def refuse_unfit(specs: Sequence[FeatureSpec], frame: StoredFrame, tier: Tier) -> None:
    """Check a frame that has reached the host.

    Raises:
        CacheError: a feature holds NaN or infinity, or reaches beyond what its encoding can hold.
    """
    for spec, (low, high) in zip(specs, frame.extremes.tolist(), strict=True):
        if not (np.isfinite(low) and np.isfinite(high)):
            raise CacheError(
                f"{spec.name} holds values that are NaN or infinite (it reaches from {low} to {high}); nothing "
                "non-finite is ever stored. Look at the teacher's weights and precision"
            )
        if spec.encoding == "unit" and (round(low * UNIT_LIMIT) < 0 or round(high * UNIT_LIMIT) > UNIT_LIMIT):
            raise CacheError(f"{spec.name} reaches from {low:g} to {high:g}, expected weights from 0 to 1")
        if spec.encoding == "affine" and spec.is_scaled(tier) and high - low > np.finfo(np.float32).max:
            raise CacheError(f"{spec.name} reaches from {low:g} to {high:g}: wider than float32 can hold")
        halves = spec.encoding == "float16" or (spec.encoding == "affine" and not spec.is_scaled(tier))
        if halves and max(-low, high) > _FLOAT16_LIMIT:
            raise CacheError(
                f"{spec.name} reaches from {low:g} to {high:g}, but float16 ends at ±{_FLOAT16_LIMIT:g}: "
                "scale the feature down in the teacher, or choose another encoding or tier"
            )


def _checked(spec: FeatureSpec, features: Mapping[str, Tensor]) -> Tensor:
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
    return {spec.name: values.to(torch.float32 if spec.encoding == "float32" else torch.float16).contiguous()}


def _scaled(spec: FeatureSpec, values: Tensor) -> dict[str, Tensor]:
    others = [number for number, dim in enumerate(spec.dims) if dim not in spec.scale_dims]
    shape = [size if dim in spec.scale_dims else 1 for dim, size in zip(spec.dims, spec.shape, strict=True)]
    low, high = values.amin(others), values.amax(others)
    if spec.encoding == "affine":
        span = high - low
        scale, offset = span / (2 * INT8_LIMIT), low + 0.5 * span
    else:
        scale, offset = torch.maximum(-low, high) / INT8_LIMIT, None
    scale = torch.where(scale < _SMALLEST_SCALE, torch.ones_like(scale), scale)
    centred = values if offset is None else values - offset.reshape(shape)
    whole = (centred / scale.reshape(shape)).round_().clamp_(-INT8_LIMIT, INT8_LIMIT)
    arrays = {spec.name: whole.to(torch.int8).contiguous(), spec.scale_array: scale.contiguous()}
    if offset is not None:
        arrays[spec.offset_array] = offset.contiguous()
    return arrays
