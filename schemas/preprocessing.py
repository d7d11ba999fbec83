"""How an image becomes network input. Part of a detector's identity: published weights fit one setting only."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field


class Preprocessing(BaseModel):
    """The published order: decode, normalise at full resolution, resize the float image, zero-pad bottom and right.

    Attributes:
        color_order: channel order of the network input; ``mean`` and ``std`` are in that order.
        mean: subtracted per channel, in 8-bit units.
        std: divided by per channel, in 8-bit units.
        scale: image size factor, applied to the normalised image; the new size is ``int(scale * size)``.
        pad_multiple: height and width are padded up to a multiple of this.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    color_order: Literal["rgb", "bgr"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: float = Field(default=1.0, gt=0)
    pad_multiple: int = Field(default=32, ge=1)

    def resized_hw(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after the resize, before the padding."""
        return int(self.scale * height), int(self.scale * width)

    def padded_hw(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the network input for an original image of this size."""
        multiple = self.pad_multiple
        resized = self.resized_hw(height, width)
        return -(-resized[0] // multiple) * multiple, -(-resized[1] // multiple) * multiple

    def scale_matrix(self) -> NDArray[np.float64]:
        """(4, 4) float64: resized pixels from original pixels. Padding changes no pixel's coordinates."""
        return np.diag([self.scale, self.scale, 1.0, 1.0])
