"""From the ground plane to pixels: poses on the ground, cameras, clipping."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NEAR_M = 0.25
SUBPIXEL_BITS = 4
"""OpenCV draws polygons with fixed-point corners of so many fractional bits."""


@dataclass(frozen=True, eq=False)
class Camera:
    """A calibrated camera.

    Attributes:
        intrinsics: (3, 3) pixels.
        camera_from_ego: (4, 4), optical camera frame.
        size_wh: image width and height in pixels.
    """

    intrinsics: Array
    camera_from_ego: Array
    size_wh: tuple[int, int]

    @property
    def position_m(self) -> Array:
        """(3,) in the ego frame."""
        position: Array = -self.camera_from_ego[:3, :3].T @ self.camera_from_ego[:3, 3]
        return position

    def points(self, points_ego_m: Array) -> Array:
        """(…, 3) points of the ego frame in the camera frame."""
        moved: Array = points_ego_m @ self.camera_from_ego[:3, :3].T + self.camera_from_ego[:3, 3]
        return moved

    def fixed_point_pixels(self, points_camera_m: Array) -> NDArray[np.int32]:
        """(…, 2) pixels of camera-frame points (…, 3), as OpenCV's fixed-point integers."""
        focal = self.intrinsics[[0, 1], [0, 1]]
        pixels = points_camera_m[..., :2] / points_camera_m[..., 2:] * focal + self.intrinsics[:2, 2]
        fixed: NDArray[np.int32] = np.round(pixels * 2**SUBPIXEL_BITS).clip(-(2**24), 2**24).astype(np.int32)
        return fixed

    def rays(self) -> Array:
        """(H, W, 3) viewing directions of the pixel centres in the ego frame, not normalised."""
        columns, rows = np.meshgrid(np.arange(self.size_wh[0]), np.arange(self.size_wh[1]))
        pixels = np.stack([columns, rows, np.ones_like(columns)], axis=-1).astype(np.float64)
        directions: Array = pixels @ (self.camera_from_ego[:3, :3].T @ np.linalg.inv(self.intrinsics)).T
        return directions


def clip_near(polygon_camera_m: Array) -> Array:
    """The part of a camera-frame polygon (K, 3) that lies in front of the near plane; perhaps empty."""
    kept: list[list[float]] = []
    corners = polygon_camera_m.tolist()
    for start, end in zip(corners, corners[1:] + corners[:1], strict=True):
        if start[2] > NEAR_M:
            kept.append(start)
        if (start[2] > NEAR_M) != (end[2] > NEAR_M):
            share = (NEAR_M - start[2]) / (end[2] - start[2])
            kept.append([start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1]), NEAR_M])
    return np.array(kept, dtype=np.float64).reshape(-1, 3)


def relative_poses(poses: Array, origin: Array) -> Array:
    """(N, 3) poses x, y, yaw in the frame of the pose ``origin`` (3,)."""
    cos, sin = np.cos(origin[2]), np.sin(origin[2])
    gap = poses[:, :2] - origin[:2]
    ahead, left = cos * gap[:, 0] + sin * gap[:, 1], cos * gap[:, 1] - sin * gap[:, 0]
    return np.stack([ahead, left, poses[:, 2] - origin[2]], axis=1)


def ahead_of(poses: Array, forward_m: float, left_m: float = 0.0) -> Array:
    """(N, 3) poses moved along and across their own heading."""
    cos, sin = np.cos(poses[:, 2]), np.sin(poses[:, 2])
    x, y = poses[:, 0] + forward_m * cos - left_m * sin, poses[:, 1] + forward_m * sin + left_m * cos
    return np.stack([x, y, poses[:, 2]], axis=1)


def footprints(poses: Array, size_lwh_m: Array) -> Array:
    """(N, 4, 2) corners on the ground of upright boxes: front left, front right, rear right, rear left."""
    half = size_lwh_m[:, None, :2] / 2 * np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]])
    cos, sin = np.cos(poses[:, 2])[:, None], np.sin(poses[:, 2])[:, None]
    x = poses[:, :1] + cos * half[..., 0] - sin * half[..., 1]
    y = poses[:, 1:2] + sin * half[..., 0] + cos * half[..., 1]
    return np.stack([x, y], axis=-1)
