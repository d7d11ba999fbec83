"""The 18 numbers of ego motion that BEVFormer reads, exactly as its published weights were trained with them.

| slots | content                                                                                                    |
|-------|------------------------------------------------------------------------------------------------------------|
| 0:3   | ego position in the global frame, metres (the LiDAR's ego pose)                                            |
| 3:7   | the w of that pose's quaternion, four times: assigning a quaternion object to four slots keeps its real    |
|       | part only. An accident of the published loader, but what the weights know. The sign is the table's         |
| 7:10  | acceleration, m/s²                                                                                         |
| 10:13 | rotation rate, rad/s                                                                                       |
| 13:16 | velocity, m/s                                                                                              |
| 16    | yaw of the ego's x axis in the ground plane, radians in [0, 2π)                                            |
| 17    | the same in degrees, [0, 360)                                                                              |

Slots 7:16 come from the first CAN message after the sample's time (the last message when none is later): the published
converter looks for the last message before it, but reads these values from its loop variable, one message on. Without
messages they are zero, and ``has_can_bus`` says so.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenes.confined_paths import confined_path
from scenes.geometry import heading_rad, rotation_matrix
from schemas.errors import DataError
from schemas.frames import CAN_BUS_LENGTH

_MOTION_KEYS = ("accel", "rotation_rate", "vel")
MOTION_LENGTH = 3 * len(_MOTION_KEYS)


def can_bus_vector(
    ego_translation_m: NDArray[np.float64], ego_rotation_wxyz: NDArray[np.float64], motion: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The 18-vector with absolute values; the temporal protocol turns slots 0:3 and 17 into differences later.

    Args:
        ego_translation_m: (n, 3) float64, global_from_ego at the LiDAR's time.
        ego_rotation_wxyz: (n, 4) float64, as stored in the table.
        motion: (n, 9) float64 acceleration, rotation rate, velocity.

    Returns:
        (n, 18) float64.
    """
    yaw_deg = heading_rad(rotation_matrix(ego_rotation_wxyz)) / np.pi * 180
    yaw_deg = np.where(yaw_deg < 0, yaw_deg + 360, yaw_deg)
    vector = np.empty((len(motion), CAN_BUS_LENGTH))
    vector[:, 0:3] = ego_translation_m
    vector[:, 3:7] = ego_rotation_wxyz[:, :1]
    vector[:, 7:16] = motion
    vector[:, 16] = yaw_deg / 180 * np.pi
    vector[:, 17] = yaw_deg
    return vector


def read_scene_motion(data_root: Path, scene_name: str, timestamps_us: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """Acceleration, rotation rate and velocity of a scene's samples from ``can_bus/<scene>_pose.json``.

    Args:
        data_root: the nuScenes directory.
        scene_name: e.g. ``scene-0061``.
        timestamps_us: (N,) int64 sample times.

    Returns:
        (N, 9) float64, or None when the file is absent or holds no message.

    Raises:
        DataError: the file is damaged.
    """
    path = confined_path(data_root, f"can_bus/{scene_name}_pose.json")
    if not path.exists():
        return None
    try:
        messages = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(messages, list):
            raise TypeError(f"the file holds a {type(messages).__name__}")
        times_us = np.array([message["utime"] for message in messages], dtype=np.int64)
        if len(messages) == 0:
            return None
        return np.stack([_motion(messages[chosen]) for chosen in _next_messages(times_us, timestamps_us)])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: expected a list of messages with utime and three finite numbers each for "
            f"{', '.join(_MOTION_KEYS)}, got {type(error).__name__}: {error}. Restore the file from nuScenes' "
            "CAN bus expansion, or remove it (the scene then counts as one without CAN bus)."
        ) from error


def _next_messages(times_us: NDArray[np.int64], timestamps_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Per sample, the first message in file order that is later than it, else the last message."""
    later = times_us[None, :] > timestamps_us[:, None]
    return np.where(later.any(axis=1), later.argmax(axis=1), len(times_us) - 1)


def _motion(message: dict[str, Any]) -> NDArray[np.float64]:
    values = np.array([message[key] for key in _MOTION_KEYS], dtype=np.float64)
    if values.shape != (3, 3) or not np.isfinite(values).all():
        raise ValueError(f"message of utime {message['utime']} holds {values.tolist()}")
    return values.ravel()
