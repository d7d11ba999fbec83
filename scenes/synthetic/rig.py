"""The sensor rig: where the six cameras and the LiDAR sit, where they look, and when they fire.

The numbers are those of the nuScenes cars, rounded. Every drive gets its own small calibration error around them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from schemas.frames import CAMERAS

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CameraMount:
    """One camera of the car.

    Attributes:
        position_m: in the ego frame (x forward, y left, z up, origin at the rear axle on the ground).
        direction_deg: where it looks, counter-clockwise from straight ahead.
        focal_per_width: focal length in image widths.
        early_us: how long before the LiDAR keyframe it is taken.
    """

    position_m: tuple[float, float, float]
    direction_deg: float
    focal_per_width: float
    early_us: int


MOUNTS: dict[str, CameraMount] = {
    "CAM_FRONT": CameraMount((1.70, 0.01, 1.51), 0.3, 0.790, 35_500),
    "CAM_FRONT_RIGHT": CameraMount((1.55, -0.49, 1.50), -56.4, 0.788, 27_600),
    "CAM_FRONT_LEFT": CameraMount((1.52, 0.49, 1.51), 55.2, 0.792, 42_500),
    "CAM_BACK": CameraMount((0.03, 0.00, 1.58), 179.9, 0.506, 10_400),
    "CAM_BACK_LEFT": CameraMount((1.04, 0.48, 1.59), 108.6, 0.786, 900),
    "CAM_BACK_RIGHT": CameraMount((1.01, -0.48, 1.56), -110.8, 0.787, 20_000),
}
"""In ``schemas.frames.CAMERAS`` order."""

LIDAR_POSITION_M = (0.94, 0.0, 1.84)
EGO_CENTER_FORWARD_M = 1.4
EGO_SIZE_WLH_M = (1.75, 4.1, 1.55)
PRINCIPAL_POINT = (0.505, 0.545)
"""Of image width and height."""


@dataclass(frozen=True, eq=False)
class Rig:
    """The calibrated rig of one drive.

    Attributes:
        intrinsics: (6, 3, 3) pixels, cameras in ``CAMERAS`` order.
        ego_from_camera: (6, 4, 4), optical camera frame (x right, y down, z forward).
        ego_from_lidar: (4, 4), LiDAR frame (x right, y forward, z up).
        early_us: (6,) nominal lead of each camera before the LiDAR keyframe.
    """

    intrinsics: Array
    ego_from_camera: Array
    ego_from_lidar: Array
    early_us: NDArray[np.int64]


def calibrate(rng: np.random.Generator, image_width: int, image_height: int) -> Rig:
    """The rig with one drive's mounting tolerances: about 1 cm, half a degree, 0.5 % of focal length."""
    assert tuple(MOUNTS) == CAMERAS
    intrinsics = np.tile(np.eye(3), (len(MOUNTS), 1, 1))
    ego_from_camera = np.tile(np.eye(4), (len(MOUNTS), 1, 1))
    for number, mount in enumerate(MOUNTS.values()):
        focal = mount.focal_per_width * image_width * (1 + 0.004 * rng.uniform(-1, 1))
        intrinsics[number, :2, :2] *= focal
        intrinsics[number, :2, 2] = np.array(PRINCIPAL_POINT) * (image_width, image_height)
        intrinsics[number, :2, 2] += 0.004 * image_width * rng.uniform(-1, 1, 2)
        optical = Rotation.from_euler("ZX", [mount.direction_deg - 90.0, -90.0], degrees=True)
        ego_from_camera[number] = _mounting(rng, optical, mount.position_m)
    ego_from_lidar = _mounting(rng, Rotation.from_euler("Z", -90.0, degrees=True), LIDAR_POSITION_M)
    early_us = np.array([mount.early_us for mount in MOUNTS.values()], dtype=np.int64)
    return Rig(intrinsics, ego_from_camera, ego_from_lidar, early_us)


def quaternion_wxyz(rotation: Array) -> list[float]:
    """Unit quaternion (w, x, y, z) of a (3, 3) rotation matrix, as nuScenes writes it."""
    x, y, z, w = Rotation.from_matrix(rotation).as_quat().tolist()
    return [w, x, y, z]


def planar_pose(x_m: float, y_m: float, yaw_rad: float) -> Array:
    """(4, 4) pose of a frame that stands on the ground."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("Z", yaw_rad).as_matrix()
    pose[:2, 3] = x_m, y_m
    return pose


def _mounting(rng: np.random.Generator, rotation: Rotation, position_m: tuple[float, float, float]) -> Array:
    tolerance = Rotation.from_rotvec(np.radians(0.4) * rng.uniform(-1, 1, 3))
    pose = np.eye(4)
    pose[:3, :3] = (tolerance * rotation).as_matrix()
    pose[:3, 3] = np.array(position_m) + 0.01 * rng.uniform(-1, 1, 3)
    return pose
