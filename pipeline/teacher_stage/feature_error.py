"""The error of one feature, added up frame by frame; no frame is kept."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from schemas.features import FeatureSpec
from schemas.fidelity import FeatureFidelity


@dataclass(frozen=True)
class ChannelSpread:
    """Centre and spread of every channel of one frame, float64, in shapes that broadcast over the feature.

    Attributes:
        mean: exact for a constant channel.
        std: 0 exactly where the channel is constant.
    """

    mean: Tensor
    std: Tensor


class FeatureError:
    """Sums over frames, in float64: cached values against live ones."""

    def __init__(self, spec: FeatureSpec) -> None:
        self._name = spec.name
        self._others = dims_within_a_channel(spec)
        self._difference = self._live = self._cached = self._product = 0.0
        self._largest = self._largest_std = 0.0

    def add(self, live: Float[Tensor, "*feature"], cached: Float[Tensor, "*feature"]) -> None:
        """One frame, both in the shape of the spec, on one device, finite."""
        values = live.double()
        difference = cached.double() - values
        spread = channel_spread(values, self._others)
        centred = values - spread.mean
        off_centre = centred + difference
        reach = difference.abs().amax(self._others, keepdim=True)
        in_std = torch.where(spread.std > 0, reach / spread.std, 0.0)
        self._difference += float(difference.square().sum())
        self._live += float(centred.square().sum())
        self._cached += float(off_centre.square().sum())
        self._product += float((centred * off_centre).sum())
        self._largest = max(self._largest, float(reach.max()))
        self._largest_std = max(self._largest_std, float(in_std.max()))

    def result(self) -> FeatureFidelity:
        """The errors over all frames together."""
        norms = math.sqrt(self._live * self._cached)
        return FeatureFidelity(
            name=self._name,
            centred_error=math.sqrt(self._difference / self._live) if self._live > 0 else None,
            cosine=self._product / norms if norms > 0 else None,
            largest_error=self._largest,
            largest_error_std=self._largest_std,
        )


def dims_within_a_channel(spec: FeatureSpec) -> list[int]:
    """Positions of the dimensions that a channel runs over.

    A channel is one index of ``scale_dims``, or of the last dimension where the feature has none. A feature without
    any other dimension is one channel.
    """
    channels = spec.scale_dims or spec.dims[-1:]
    others = [place for place, dim in enumerate(spec.dims) if dim not in channels]
    return others or list(range(len(spec.dims)))


def channel_spread(values: Float[Tensor, "*feature"], others: list[int]) -> ChannelSpread:
    """Centre and spread of every channel of float64 values. A mean that rounds would make a constant channel vary."""
    low, high = values.amin(others, keepdim=True), values.amax(others, keepdim=True)
    mean = torch.where(low == high, low, values.mean(others, keepdim=True))
    return ChannelSpread(mean, (values - mean).square().mean(others, keepdim=True).sqrt())
