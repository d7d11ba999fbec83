"""What the cache says about the frames of a batch: stored numbers on the training device, decoded there when asked for.

int8 crosses to the device, not floats: half the bytes of float16 through the bus, and the decoded copy exists only
where a loss reads it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32, Float64
from torch import Tensor

from schemas.bev_grid import BevGrid
from schemas.features import UNIT_LIMIT, FeatureSpec, Tier


@dataclass(frozen=True, eq=False)
class TeacherTargets:
    """Cached features of the supervised frames and of the keyframes just before them.

    The tensors may be views of a reading slot, so they hold until the next batch is asked for.

    Attributes:
        stored: ``(batch, frame, ...)`` by stored array name, as in the store; zeros where ``valid`` is False.
        valid: False before the start of a scene. The last frame is the supervised one and always valid.
        previous_from_current: for each frame, LiDAR points of the keyframe before it from points of its own;
            the identity at the start of a scene and where ``valid`` is False.
        specs: the features that can be asked for.
        tier: how they are stored.
        grid: the BEV grid of the teacher.
    """

    stored: Mapping[str, Tensor]
    valid: Bool[Tensor, "batch frame"]
    previous_from_current: Float64[Tensor, "batch frame 4 4"]
    specs: tuple[FeatureSpec, ...]
    tier: Tier
    grid: BevGrid

    def window(self, name: str) -> Float32[Tensor, "batch frame *feature"]:
        """A feature of every frame, oldest first; zeros where ``valid`` is False."""
        spec = self._spec(name)
        return dequantise(spec, self.tier, {array.name: self.stored[array.name] for array in spec.stored(self.tier)})

    def current(self, name: str) -> Float32[Tensor, "batch *feature"]:
        """A feature of the supervised frames."""
        return self.frame(name, -1)

    def frame(self, name: str, index: int) -> Float32[Tensor, "batch *feature"]:
        """A feature of one frame of the window, -1 the supervised one; zeros where ``valid`` is False."""
        spec = self._spec(name)
        return dequantise(
            spec, self.tier, {array.name: self.stored[array.name][:, index] for array in spec.stored(self.tier)}
        )

    def to(self, device: torch.device) -> "TeacherTargets":
        """The same targets on another device; pinned memory crosses asynchronously."""
        return TeacherTargets(
            stored={name: values.to(device, non_blocking=True) for name, values in self.stored.items()},
            valid=self.valid.to(device, non_blocking=True),
            previous_from_current=self.previous_from_current.to(device, non_blocking=True),
            specs=self.specs,
            tier=self.tier,
            grid=self.grid,
        )

    def _spec(self, name: str) -> FeatureSpec:
        (spec,) = (spec for spec in self.specs if spec.name == name)
        return spec


@torch.no_grad()
def dequantise(spec: FeatureSpec, tier: Tier, stored: Mapping[str, Tensor]) -> Float32[Tensor, "*leading_and_feature"]:
    """Decode a feature on whatever device it is; ``schemas/features.py`` has the table of encodings.

    Args:
        spec: the feature.
        tier: how it is stored.
        stored: its arrays by name, with any leading dimensions before those of the spec.

    Returns:
        The leading dimensions, then ``spec.shape``.
    """
    values = stored[spec.name].detach().float()  # float32 is handed through, which no_grad does not cut off
    if not spec.is_scaled(tier):
        return values / UNIT_LIMIT if spec.encoding == "unit" else values
    leading = values.shape[: values.ndim - len(spec.dims)]
    broadcast = leading + tuple(
        size if dim in spec.scale_dims else 1 for dim, size in zip(spec.dims, spec.shape, strict=True)
    )
    values = values * stored[spec.scale_array].reshape(broadcast)
    return values + stored[spec.offset_array].reshape(broadcast) if spec.encoding == "affine" else values
