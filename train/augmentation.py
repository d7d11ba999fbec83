"""What training does to the images that evaluation does not. It moves no pixel, so cached targets stay where they are.

BEVFormer's published pipeline distorts the colours of every camera of every frame, those of the history too, each by a
draw of its own. Here a draw belongs to its place in the run: the seed, the epoch, the clip, the frame and the camera.
So a resumed run goes on with the draws it would have had, whatever the number of threads; a frame that several clips
of an epoch share is drawn anew for each, as in the published queue.

GridMask, the other published augmentation, is the detector's (``detectors/grid_mask.py``).
"""

import hashlib

import numpy as np
from pydantic import BaseModel, ConfigDict

from scenes.photometric import PhotometricDistortion, PhotometricOptions, draw_distortion
from schemas.frames import CAMERAS


class AugmentationOptions(BaseModel):
    """What is done to the images of a training run.

    Attributes:
        photometric: distortion of colours, ``{}`` for the published one; None leaves them as they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    photometric: PhotometricOptions | None = None


def frame_distortions(
    options: PhotometricOptions, seed: int, occasion: str, sample_token: str
) -> tuple[PhotometricDistortion, ...]:
    """The draws for the six images of a frame, in ``CAMERAS`` order.

    Args:
        options: how far.
        seed: of the run.
        occasion: names epoch and clip; equal occasions have equal draws.
        sample_token: the frame.
    """
    return tuple(
        draw_distortion(options, _random_numbers(str(seed), occasion, sample_token, camera)) for camera in CAMERAS
    )


def _random_numbers(*place: str) -> np.random.Generator:
    """Random numbers of their own for every place: the hash leaves no two places alike."""
    digest = hashlib.sha256("\0".join(place).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
