"""Whether this machine computes what a cache holds: stored values against freshly quantised ones.

On the machine that filled the cache they are the same bytes. Another device adds in another order; in float32 that
moves a feature of the ground by one quantisation level at most. A feature of objects may move further here and there:
where a decoder chooses its queries by score, two that score alike may change places.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.teacher_stage.feature_error import dims_within_a_channel
from schemas.features import INT8_LIMIT, UNIT_LIMIT, FeatureSpec, Tier
from train.options import Precision
from train.targets import dequantise


@dataclass(frozen=True)
class Tolerance:
    """What another device explains.

    Attributes:
        levels: difference of a value in quantisation levels. No value of an integer array may differ by more.
        floats_apart: share of the values of a float array that may.
    """

    levels: float
    floats_apart: float


TOLERANCES: Mapping[Precision, Tolerance] = {
    "float32": Tolerance(levels=1.05, floats_apart=0.1),
    "float16": Tolerance(levels=2.0, floats_apart=1.0),
    "bfloat16": Tolerance(levels=8.0, floats_apart=1.0),
}
"""By the precision of the forward pass. In float32 a value may fall on the other side of a rounding: one level, and a
little for the scale itself. For bfloat16, twice what separates the demo's teacher from itself in float32 (4.2 levels,
six frames in a row); it orders more than half of the chosen queries otherwise, so these cannot be judged."""

_SAME_SIZE_INTEGER = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
_STEPS_OF_FLOAT16 = 1024


@dataclass(frozen=True)
class Agreement:
    """How well one feature agrees.

    Attributes:
        identical: numbers in the store with the very bytes that were computed now, scales and offsets included.
        numbers: all that were compared.
        largest_levels: greatest difference of a value, in quantisation levels.
        apart: values that differ by more levels than allowed.
        values: all values.
    """

    identical: int = 0
    numbers: int = 0
    largest_levels: float = 0.0
    apart: int = 0
    values: int = 0

    def is_explained(self, spec: FeatureSpec, tier: Tier, tolerance: Tolerance) -> bool:
        """Whether another device explains the difference."""
        integers = spec.is_scaled(tier) or spec.encoding == "unit"
        return self.apart <= (0 if integers else tolerance.floats_apart * self.values)

    def with_frame(self, other: "Agreement") -> "Agreement":
        """Of this and of another frame together."""
        return Agreement(
            self.identical + other.identical,
            self.numbers + other.numbers,
            max(self.largest_levels, other.largest_levels),
            self.apart + other.apart,
            self.values + other.values,
        )


def agreement(
    spec: FeatureSpec, tier: Tier, cached: Mapping[str, Tensor], fresh: Mapping[str, Tensor], allowed: float
) -> Agreement:
    """Compare one feature of one frame.

    Args:
        spec: the feature.
        tier: how it is stored.
        cached: its arrays by name, as the cache holds them.
        fresh: the same, quantised just now; on the same device.
        allowed: quantisation levels that a value may differ by.
    """
    pairs = [(cached[array.name], fresh[array.name]) for array in spec.stored(tier)]
    now = dequantise(spec, tier, fresh)
    levels = (dequantise(spec, tier, cached) - now).abs() / quantisation_level(spec, tier, now, fresh)
    return Agreement(
        identical=sum(int((_as_integers(one) == _as_integers(other)).sum()) for one, other in pairs),
        numbers=sum(one.numel() for one, _ in pairs),
        largest_levels=float(levels.max()),
        apart=int((levels > allowed).sum()),
        values=levels.numel(),
    )


def quantisation_level(spec: FeatureSpec, tier: Tier, values: Tensor, stored: Mapping[str, Tensor]) -> Tensor:
    """What counts as one level, in the feature's unit; it broadcasts over the feature.

    A step of its int8 or uint8 encoding. For floats, what such a step would be: the 254th part of the channel's span.
    In any case not less than a step of float16 at the channel's greatest magnitude, so that a channel that is constant
    but for rounding is not held to its own noise.
    """
    others = dims_within_a_channel(spec)
    low, high = values.amin(others, keepdim=True), values.amax(others, keepdim=True)
    if spec.is_scaled(tier):
        step = stored[spec.scale_array].reshape(low.shape)
    elif spec.encoding == "unit":
        step = torch.full_like(low, 1 / UNIT_LIMIT)
    else:
        step = (high - low) / (2 * INT8_LIMIT)
    level = torch.maximum(step, torch.maximum(-low, high) / _STEPS_OF_FLOAT16)
    return torch.where(level > 0, level, torch.ones_like(level))


def _as_integers(values: Tensor) -> Tensor:
    """The bytes, for a comparison that tells −0 from 0."""
    return values.contiguous().view(_SAME_SIZE_INTEGER[values.element_size()])
