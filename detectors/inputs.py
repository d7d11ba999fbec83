"""What a detector takes: one keyframe per sample, six cameras each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from schemas.frames import CameraInputs


@dataclass(frozen=True, eq=False)
class CameraBatch:
    """Keyframes of one or several sequences, side by side.

    Attributes:
        images: preprocessed and padded.
        image_from_lidar: pixels of ``images`` from LiDAR metres, as in ``CameraInputs``.
        can_bus: absolute values; the detector forms the differences to the previous frame.
        scene_tokens: one per sample. History is used only where the previous state is of the same scene.
    """

    images: Float[Tensor, "batch camera 3 height width"]
    image_from_lidar: Float32[Tensor, "batch camera 4 4"]
    can_bus: Float64[Tensor, "batch 18"]
    scene_tokens: tuple[str, ...]

    def __post_init__(self) -> None:
        assert len(self.scene_tokens) == len(self.images)

    def to(self, device: torch.device) -> "CameraBatch":
        """The same batch on another device; pinned memory crosses asynchronously."""
        return CameraBatch(
            images=self.images.to(device, non_blocking=True),
            image_from_lidar=self.image_from_lidar.to(device, non_blocking=True),
            can_bus=self.can_bus.to(device, non_blocking=True),
            scene_tokens=self.scene_tokens,
        )


def batch_of(inputs: Sequence[CameraInputs]) -> CameraBatch:
    """Stack frames of equal image size into a batch on the CPU."""
    return CameraBatch(
        images=torch.from_numpy(np.stack([sample.images for sample in inputs])),
        image_from_lidar=torch.from_numpy(np.stack([sample.image_from_lidar for sample in inputs])).float(),
        can_bus=torch.from_numpy(np.stack([sample.frame.can_bus for sample in inputs])),
        scene_tokens=tuple(sample.frame.scene_token for sample in inputs),
    )
