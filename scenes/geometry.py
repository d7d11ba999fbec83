"""Rigid transforms from table rows, and boxes drawn into images.

Quaternions are (w, x, y, z), as in the nuScenes tables. Leading dimensions are batch dimensions everywhere.
"""

import numpy as np
from numpy.typing import NDArray

from schemas.boxes import Boxes, box_corners_m

_EDGES = np.array([(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)])


def rotation_matrix(rotation_wxyz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation matrices of quaternions, which are normalised first.

    Args:
        rotation_wxyz: (..., 4) float64, not zero.

    Returns:
        (..., 3, 3) float64.
    """
    w, x, y, z = np.moveaxis(rotation_wxyz / np.linalg.norm(rotation_wxyz, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrix: NDArray[np.float64] = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
    return matrix


def pose_matrix(translation_m: NDArray[np.float64], rotation_wxyz: NDArray[np.float64]) -> NDArray[np.float64]:
    """``parent_from_child`` of a table row that gives the child's position and rotation in the parent.

    Args:
        translation_m: (..., 3) float64.
        rotation_wxyz: (..., 4) float64.

    Returns:
        (..., 4, 4) float64.
    """
    matrix = np.zeros((*translation_m.shape[:-1], 4, 4))
    matrix[..., :3, :3] = rotation_matrix(rotation_wxyz)
    matrix[..., :3, 3] = translation_m
    matrix[..., 3, 3] = 1.0
    return matrix


def heading_rad(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angle of the rotated x axis in the x-y plane, counter-clockwise from +x.

    Args:
        rotation: (n, 3, 3) float64.

    Returns:
        (n,) float64 in [-π, π].
    """
    angle: NDArray[np.float64] = np.arctan2(rotation[..., 1, 0], rotation[..., 0, 0])
    return angle


def wrap_rad(angle_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same angles (n,) in [-π, π)."""
    wrapped: NDArray[np.float64] = angle_rad - np.floor(angle_rad / (2 * np.pi) + 0.5) * (2 * np.pi)
    return wrapped


def project_points(points_m: NDArray[np.float64], image_from_lidar: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points of the LiDAR frame in the image.

    Args:
        points_m: (..., 3) float64.
        image_from_lidar: (4, 4) float64.

    Returns:
        (..., 3) float64: u, v in pixels and depth in metres; u and v mean nothing where depth is not positive.
    """
    scaled = points_m @ image_from_lidar[:3, :3].T + image_from_lidar[:3, 3]
    depth_m = scaled[..., 2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        projected: NDArray[np.float64] = np.concatenate([scaled[..., :2] / depth_m, depth_m], axis=-1)
    return projected


def box_edges_in_image(
    boxes: Boxes, image_from_lidar: NDArray[np.float64], near_m: float = 0.1
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Wire frames of boxes in one image, cut off at the near plane.

    Args:
        boxes: N boxes, LiDAR frame.
        image_from_lidar: (4, 4) float64.
        near_m: edges are cut where their depth falls below this; edges wholly nearer are left out.

    Returns:
        (K, 2, 2) float64, the ends (u, v) of K line segments in pixels, also outside the image;
        (K,) int64, the box that each segment belongs to.
    """
    ends = box_corners_m(boxes)[:, _EDGES].reshape(-1, 2, 3)
    owner = np.repeat(np.arange(len(boxes), dtype=np.int64), len(_EDGES))
    scaled = ends @ image_from_lidar[:3, :3].T + image_from_lidar[:3, 3]
    kept = (scaled[..., 2] > near_m).any(axis=1)
    scaled, owner = scaled[kept], owner[kept]
    first, last = scaled[:, :1], scaled[:, 1:]
    depth_change = last[..., 2:] - first[..., 2:]
    crossing = (near_m - first[..., 2:]) / np.where(depth_change == 0, 1.0, depth_change)
    cut = first + crossing * (last - first)
    scaled = np.where(scaled[..., 2:] < near_m, cut, scaled)
    return scaled[..., :2] / scaled[..., 2:], owner
