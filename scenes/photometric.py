"""Photometric distortion of camera images, as the published BEVFormer training applies it.

Brightness, contrast before or after the HSV steps, saturation, hue, and an exchange of channels, each with its own
coin; every camera of every frame by itself. The image is float32 from the first step on and nothing is clipped, so
pixels below 0 and above 255 reach the network, and a colour may be more saturated than a display could show.

What is drawn and what is done with it are apart: a draw is a small value that tests and pictures can make by hand.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

_WHOLE_TURN_DEG = 360.0
_BAND_ROWS = 64
"""Rows distorted at once: at 1600 pixels a row they stay in a core's cache, which takes a third off the time."""


class PhotometricOptions(BaseModel):
    """How far images are distorted; the defaults are the published ones.

    Attributes:
        probability: of each of the five steps.
        brightness: most that is added or taken, in 8-bit units.
        contrast: least and largest factor on all pixels.
        saturation: least and largest factor on the saturation.
        hue_deg: most that the hue is turned, either way.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    probability: float = Field(default=0.5, ge=0, le=1)
    brightness: float = Field(default=32.0, ge=0)
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue_deg: float = Field(default=18.0, ge=0, le=180)

    @model_validator(mode="after")
    def _check(self) -> "PhotometricOptions":
        for name, (least, largest) in (("contrast", self.contrast), ("saturation", self.saturation)):
            if not 0 < least <= largest:
                raise ValueError(f"{name} must be two factors above 0 in ascending order, got {least} and {largest}")
        return self


@dataclass(frozen=True)
class PhotometricDistortion:
    """What happens to one image; the defaults do nothing.

    Attributes:
        brightness: added to every pixel, in 8-bit units.
        contrast: factor on every pixel.
        contrast_first: whether that comes before the HSV steps or after them.
        saturation: factor on the saturation.
        hue_deg: added to the hue.
        channels: which channel becomes blue, green and red; 0 is blue.
    """

    brightness: float = 0.0
    contrast: float = 1.0
    contrast_first: bool = True
    saturation: float = 1.0
    hue_deg: float = 0.0
    channels: tuple[int, int, int] = (0, 1, 2)


def draw_distortion(options: PhotometricOptions, rng: np.random.Generator) -> PhotometricDistortion:
    """Draw what happens to one image; the draw takes the same numbers from ``rng`` whatever it decides."""
    happens = rng.random(5) < options.probability
    brightness = rng.uniform(-options.brightness, options.brightness)
    contrast, contrast_first = rng.uniform(*options.contrast), bool(rng.integers(2))
    saturation, hue_deg = rng.uniform(*options.saturation), rng.uniform(-options.hue_deg, options.hue_deg)
    blue, green, red = (int(channel) for channel in rng.permutation(3))
    return PhotometricDistortion(
        brightness=brightness if happens[0] else 0.0,
        contrast=contrast if happens[1] else 1.0,
        contrast_first=contrast_first,
        saturation=saturation if happens[2] else 1.0,
        hue_deg=hue_deg if happens[3] else 0.0,
        channels=(blue, green, red) if happens[4] else (0, 1, 2),
    )


def distorted(pixels: NDArray[np.uint8], distortion: PhotometricDistortion) -> NDArray[np.float32]:
    """A distorted copy of an image.

    The published code converts to HSV and back even where neither saturation nor hue change. That is the identity to
    rounding while no pixel is negative, and is left out then.

    Args:
        pixels: (H, W, 3), RGB.
        distortion: what to do.

    Returns:
        (H, W, 3) float32, RGB, not clipped.
    """
    table = np.arange(256, dtype=np.float32) + np.float32(distortion.brightness)
    if distortion.contrast_first:
        table *= np.float32(distortion.contrast)
    image = np.empty(pixels.shape, dtype=np.float32)
    for top in range(0, len(pixels), _BAND_ROWS):
        rows = slice(top, top + _BAND_ROWS)
        _distort_band(np.asarray(cv2.LUT(pixels[rows], table), dtype=np.float32), distortion, image[rows])
    return image


def _distort_band(band: NDArray[np.float32], distortion: PhotometricDistortion, target: NDArray[np.float32]) -> None:
    """Everything after the brightness, on some rows of an image; ``band`` is used up."""
    if distortion.saturation != 1 or distortion.hue_deg != 0 or band.min() < 0:
        _recolour(band, distortion)
    if not distortion.contrast_first and distortion.contrast != 1:
        band *= np.float32(distortion.contrast)
    # Channels are numbered from blue as published; here red comes first.
    pairs = [number for place, source in enumerate(distortion.channels) for number in (2 - source, 2 - place)]
    cv2.mixChannels([band], [target], pairs)


def _recolour(image: NDArray[np.float32], distortion: PhotometricDistortion) -> None:
    """Scale the saturation and turn the hue: OpenCV's HSV of float images, H in degrees, S in [0, 1], V as pixels."""
    hsv = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), dtype=np.float32)
    hue, saturation = hsv[..., 0], hsv[..., 1]
    saturation *= np.float32(distortion.saturation)
    if distortion.hue_deg != 0:
        hue += np.float32(distortion.hue_deg)
        np.subtract(hue, _WHOLE_TURN_DEG, out=hue, where=hue > _WHOLE_TURN_DEG)
        np.add(hue, _WHOLE_TURN_DEG, out=hue, where=hue < 0)
    cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=image)
