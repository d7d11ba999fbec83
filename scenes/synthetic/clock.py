"""When each sensor of a scene fires."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.options import KEYFRAME_INTERVAL_S

Array = NDArray[np.float64]

_EPOCH_US = 1_600_000_000_000_000
_BETWEEN_SCENES_US = 1_000_000_000


@dataclass(frozen=True, eq=False)
class Clock:
    """Times of a scene, in microseconds of the tables and in seconds since the scene's first instant.

    Attributes:
        start_us: the instant that counts as zero seconds.
        lidar_us: (F,) keyframe times.
        camera_us: (F, 6), each a little before its keyframe.
    """

    start_us: int
    lidar_us: NDArray[np.int64]
    camera_us: NDArray[np.int64]

    @property
    def lidar_s(self) -> Array:
        """(F,) seconds."""
        return (self.lidar_us - self.start_us) * 1e-6

    @property
    def camera_s(self) -> Array:
        """(F, 6) seconds."""
        return (self.camera_us - self.start_us) * 1e-6

    @property
    def duration_s(self) -> float:
        """From zero to the last keyframe."""
        return float(self.lidar_s[-1])


def set_clock(rng: np.random.Generator, scene_number: int, frames: int, early_us: NDArray[np.int64]) -> Clock:
    """Keyframes half a second apart, give or take 25 ms; cameras up to 43 ms before them, in the rig's order."""
    start = _EPOCH_US + scene_number * _BETWEEN_SCENES_US + int(rng.integers(0, 1_000_000))
    steps = (np.arange(frames) * KEYFRAME_INTERVAL_S * 1e6).astype(np.int64) + 100_000
    lidar = start + steps + rng.integers(-25_000, 25_001, frames)
    camera = lidar[:, None] - early_us - rng.integers(-400, 401, (frames, len(early_us)))
    return Clock(start, lidar, camera)
