"""Boxes between nuScenes' global frame and the LiDAR frame of a keyframe, in the convention of ``schemas.boxes``.

The published annotation files take a box's yaw as ``yaw_pitch_roll[0]`` of its rotation in the LiDAR frame, which is
``atan2(-R01, R00)``. The car leans a little, so this is not quite the heading of the box's x axis, and rotating back
by that angle about the LiDAR's z axis (as mmdet3d's exporter does) returns a slightly tilted box. But nuScenes boxes
stand upright in the global frame, and for those the published yaw is the global yaw plus one angle of the frame,
``atan2(-L01, L00)`` with L the rotation global → LiDAR. ``to_global`` therefore subtracts that angle and gives an
upright box: the exact inverse for every box that nuScenes annotates, and for detections at most half the squared tilt
(in radians, about 1e-4) away from mmdet3d's exporter. Velocities lie in the ground plane and are inverted as such.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenes.geometry import rotation_matrix, wrap_rad
from schemas.boxes import Boxes


@dataclass(frozen=True, eq=False)
class GlobalBoxes:
    """Boxes as rows of nuScenes' tables and submissions hold them.

    Attributes:
        translation_m: (N, 3) float64, gravity centre.
        size_wlh_m: (N, 3) float64.
        rotation_wxyz: (N, 4) float64.
        velocity_mps: (N, 2) float64, NaN where unknown.
        labels: (N,) int64, indices into ``CLASS_NAMES``.
    """

    translation_m: NDArray[np.float64]
    size_wlh_m: NDArray[np.float64]
    rotation_wxyz: NDArray[np.float64]
    velocity_mps: NDArray[np.float64]
    labels: NDArray[np.int64]


def to_lidar(boxes: GlobalBoxes, lidar_from_global: NDArray[np.float64]) -> Boxes:
    """Annotations in the LiDAR frame.

    Args:
        boxes: N boxes in the global frame.
        lidar_from_global: (4, 4) float64.

    Returns:
        N boxes without scores, in the same order.
    """
    rotation = lidar_from_global[:3, :3] @ rotation_matrix(boxes.rotation_wxyz)
    has_velocity = np.isfinite(boxes.velocity_mps).all(axis=1)
    velocity_mps = np.where(has_velocity[:, None], boxes.velocity_mps, 0.0)
    return Boxes(
        center_m=boxes.translation_m @ lidar_from_global[:3, :3].T + lidar_from_global[:3, 3],
        size_wlh_m=boxes.size_wlh_m.copy(),
        yaw_rad=wrap_rad(-_published_yaw_rad(rotation) - np.pi / 2),
        velocity_mps=velocity_mps @ lidar_from_global[:2, :2].T,
        has_velocity=has_velocity,
        labels=boxes.labels.copy(),
    )


def to_global(boxes: Boxes, global_from_lidar: NDArray[np.float64]) -> GlobalBoxes:
    """Boxes of a keyframe, upright in the global frame.

    Args:
        boxes: N boxes in the LiDAR frame.
        global_from_lidar: (4, 4) float64.

    Returns:
        N boxes in the same order; velocity is NaN where ``has_velocity`` is False.
    """
    lidar_from_global = global_from_lidar[:3, :3].T
    yaw_rad = -boxes.yaw_rad - np.pi / 2 - _published_yaw_rad(lidar_from_global[None])
    zero = np.zeros_like(yaw_rad)
    velocity_mps = boxes.velocity_mps @ np.linalg.inv(lidar_from_global[:2, :2]).T
    return GlobalBoxes(
        translation_m=boxes.center_m @ global_from_lidar[:3, :3].T + global_from_lidar[:3, 3],
        size_wlh_m=boxes.size_wlh_m.copy(),
        rotation_wxyz=np.stack([np.cos(yaw_rad / 2), zero, zero, np.sin(yaw_rad / 2)], axis=-1),
        velocity_mps=np.where(boxes.has_velocity[:, None], velocity_mps, np.nan),
        labels=boxes.labels.copy(),
    )


def _published_yaw_rad(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """The ``yaw_pitch_roll[0]`` of pyquaternion, for rotation matrices (n, 3, 3)."""
    yaw: NDArray[np.float64] = np.arctan2(-rotation[..., 0, 1], rotation[..., 0, 0])
    return yaw
