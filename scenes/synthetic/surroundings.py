"""What lies behind and below all bodies in a picture: sky, skyline, ground."""

import cv2
import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.backdrop import columns_at, rows_at
from scenes.synthetic.ground import GroundMap
from scenes.synthetic.light import Light
from scenes.synthetic.view import Camera

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

BLURRED_BEYOND_M = 16.0
_GRAZING = 0.012
"""Rays flatter than this meet the ground so far away that the backdrop is drawn instead."""


class Surroundings:
    """Draws the surroundings for one camera; what depends on the calibration alone is worked out once."""

    def __init__(self, camera: Camera, ground: GroundMap, backdrop: Image, light: Light) -> None:
        rays = camera.rays()
        down = -np.minimum(rays[..., 2], -1e-9)
        is_ground = rays[..., 2] < -_GRAZING
        distance = np.hypot(rays[..., 0], rays[..., 1]) * camera.position_m[2] / down
        veil = np.where(is_ground, light.veil(distance), 0.0)[..., None]
        self._camera, self._ground, self._backdrop = camera, ground, backdrop
        self._near = (is_ground & (distance < BLURRED_BEYOND_M)).astype(np.uint8)
        self._far = (is_ground & (distance >= BLURRED_BEYOND_M)).astype(np.uint8)
        self._gain = ((1 - veil) * light.tint).astype(np.float32)
        self._veil = (veil * light.haze).astype(np.float32)
        self._azimuth_rad = np.arctan2(rays[..., 1], rays[..., 0])
        self._rows = rows_at(np.arctan2(rays[..., 2], np.hypot(rays[..., 0], rays[..., 1])))

    def draw(self, ego_pose: Array) -> Image:
        """(H, W, 3) uint8 RGB as seen from this ego pose (x, y, yaw)."""
        columns = columns_at(self._azimuth_rad + ego_pose[2])
        image = cv2.remap(self._backdrop, columns, self._rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        map_from_image = self._ground.map_from_global @ np.linalg.inv(self._image_from_ground(ego_pose))
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        for picture, mask in ((self._ground.blurred, self._far), (self._ground.sharp, self._near)):
            warped = cv2.warpPerspective(
                picture, map_from_image, self._camera.size_wh, flags=flags, borderMode=cv2.BORDER_REPLICATE
            )
            cv2.copyTo(warped, mask, image)
        hazed = cv2.multiply(image, self._gain, dtype=cv2.CV_32F)
        return np.asarray(cv2.add(hazed, self._veil, dtype=cv2.CV_8U), dtype=np.uint8)

    def _image_from_ground(self, ego_pose: Array) -> Array:
        """(3, 3) homography from global x, y to homogeneous pixels."""
        x, y, yaw = ego_pose
        cos, sin = np.cos(yaw), np.sin(yaw)
        ego_from_global = np.array([[cos, sin, -cos * x - sin * y], [-sin, cos, sin * x - cos * y], [0, 0, 1]])
        camera_from_ground = self._camera.camera_from_ego[:3, [0, 1, 3]]
        homography: Array = self._camera.intrinsics @ camera_from_ground @ ego_from_global
        return homography
