"""CAN bus messages of a drive, in the form of the nuScenes CAN bus expansion."""

import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.clock import Clock
from scenes.synthetic.motion import Drive
from scenes.synthetic.vocabulary import Row

INTERVAL_S = 0.05
GRAVITY_MPS2 = 9.8

Array = NDArray[np.float64]


def pose_messages(rng: np.random.Generator, drive: Drive, clock: Clock) -> list[Row]:
    """Pose messages at 20 Hz from just before the first keyframe to just after the last, keys in alphabetical order.

    ``accel``, ``rotation_rate`` and ``vel`` are in the ego frame, with sensor noise; ``pos`` and ``orientation`` (w, x,
    y, z) are the ego pose in the global frame.
    """
    time_s = np.arange(clock.lidar_s[0] - 0.06, clock.lidar_s[-1] + 2 * INTERVAL_S, INTERVAL_S)
    poses, step_s = drive.poses(time_s), 0.01
    speed = drive.speeds_mps(time_s)
    forward = (drive.speeds_mps(time_s + step_s) - drive.speeds_mps(time_s - step_s)) / (2 * step_s)
    turning = (drive.poses(time_s + step_s)[:, 2] - drive.poses(time_s - step_s)[:, 2]) / (2 * step_s)
    zero = np.zeros_like(speed)
    accel = np.stack([forward, speed * turning, zero + GRAVITY_MPS2], axis=1) + rng.normal(0, 0.03, (len(speed), 3))
    rate = np.stack([zero, zero, turning], axis=1) + rng.normal(0, 0.002, (len(speed), 3))
    velocity = np.stack([speed, zero, zero], axis=1)
    position = np.stack([poses[:, 0], poses[:, 1], zero], axis=1)
    half = poses[:, 2] / 2
    orientation = np.stack([np.cos(half), zero, zero, np.sin(half)], axis=1)
    utime = clock.start_us + np.round(time_s * 1e6).astype(np.int64)
    return [
        {
            "accel": _rounded(accel[number]),
            "orientation": orientation[number].tolist(),
            "pos": position[number].tolist(),
            "rotation_rate": _rounded(rate[number]),
            "utime": int(utime[number]),
            "vel": _rounded(velocity[number]),
        }
        for number in range(len(time_s))
    ]


def _rounded(values: Array) -> list[float]:
    rounded: list[float] = np.round(values, 5).tolist()
    return rounded
