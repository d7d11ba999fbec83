"""Draws bodies and their shadows into a picture, back to front, and counts how much of each is seen."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.light import Light
from scenes.synthetic.paint_order import PaintOrder
from scenes.synthetic.surfaces import Surfaces
from scenes.synthetic.view import NEAR_M, SUBPIXEL_BITS, Camera, ahead_of, clip_near, footprints

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

FAR_M = 90.0
SHADOW_BRIGHTNESS = 0.62
SHADOWS_UP_TO_M = 3.0
"""Higher things throw a shadow as if they were this high."""


@dataclass(frozen=True, eq=False)
class Cast:
    """All bodies of a scene.

    Attributes:
        surfaces: of all bodies, one after the other, each in its own frame.
        owners: (Q,) int64, which body a surface belongs to.
        size_lwh_m: (N, 3) bounding boxes.
        annotated: the first so many bodies are the annotated ones.
    """

    surfaces: Surfaces
    owners: NDArray[np.int64]
    size_lwh_m: Array
    annotated: int


@dataclass(frozen=True, eq=False)
class Sighting:
    """How much of each annotated body one or more pictures show.

    Attributes:
        shown: (M,) int64 visible pixels.
        whole: (M,) int64 pixels that would be visible if nothing stood before it.
    """

    shown: NDArray[np.int64]
    whole: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Polygons:
    """Front-facing surfaces in painting order: camera-frame corners (P, 4, 3), colours, owners, whether decals."""

    corners: Array
    colors: Array
    owners: NDArray[np.int64]
    is_decal: NDArray[np.bool_]


class Bodies:
    """Draws the cast of a scene for one camera."""

    def __init__(self, camera: Camera, cast: Cast, light: Light) -> None:
        self._camera, self._cast, self._light = camera, cast, light

    def draw(self, image: Image, poses_ego: Array, ego_pose: Array, order: PaintOrder) -> Sighting:
        """Draw all bodies that the camera sees.

        Args:
            image: (H, W, 3) RGB, drawn on.
            poses_ego: (N, 3) x, y, yaw of all bodies in the ego frame when the picture is taken.
            ego_pose: (3,) global pose of the ego frame then.
            order: of the same bodies, in the global frame.
        """
        chosen = self._in_view(poses_ego)
        self._draw_shadows(image, poses_ego[chosen], chosen, float(ego_pose[2]))
        viewer = ahead_of(ego_pose[None], *self._camera.position_m[:2].tolist())[0, :2]
        polygons = self._polygons(poses_ego, order.back_to_front(viewer, chosen), float(ego_pose[2]))
        return self._paint(image, polygons)

    def _in_view(self, poses_ego: Array) -> NDArray[np.int64]:
        """Bodies whose bounding sphere may touch the picture."""
        size = self._cast.size_lwh_m
        points = self._camera.points(np.column_stack([poses_ego[:, :2], size[:, 2] / 2]))
        radius = np.linalg.norm(size, axis=1) / 2
        middle, width = self._camera.intrinsics[0, 2], self._camera.size_wh[0]
        reach = max(middle, width - middle) / self._camera.intrinsics[0, 0]
        outside = (np.abs(points[:, 0]) - reach * points[:, 2]) / np.hypot(1, reach) > radius
        near = (points[:, 2] > -radius) & (np.hypot(poses_ego[:, 0], poses_ego[:, 1]) < FAR_M)
        return np.nonzero(near & ~outside)[0]

    def _draw_shadows(self, image: Image, poses_ego: Array, chosen: NDArray[np.int64], ego_yaw_rad: float) -> None:
        size = self._cast.size_lwh_m[chosen]
        thrown = self._light.shadow_of(np.minimum(size[:, 2], SHADOWS_UP_TO_M), ego_yaw_rad)
        feet = footprints(poses_ego, size)
        outlines = np.concatenate([feet, feet + thrown[:, None]], axis=1)
        corners = self._camera.points(np.concatenate([outlines, np.zeros((*outlines.shape[:2], 1))], axis=2))
        mask = np.zeros(image.shape[:2], dtype=np.uint8)
        in_front = (corners[..., 2] > NEAR_M).all(axis=1)
        pixels = self._camera.fixed_point_pixels(np.where(in_front[:, None, None], corners, 1.0))
        for number in range(len(corners)):
            if in_front[number]:
                polygon = cv2.convexHull(pixels[number])
            else:
                around = cv2.convexHull(outlines[number].astype(np.float32), returnPoints=False)[:, 0]
                polygon = self._camera.fixed_point_pixels(clip_near(corners[number, around]))
            if len(polygon) >= 3:
                cv2.fillConvexPoly(mask, polygon, (1,), shift=SUBPIXEL_BITS)
        darkened = cv2.convertScaleAbs(image, alpha=SHADOW_BRIGHTNESS)
        cv2.copyTo(darkened, mask, image)

    def _polygons(self, poses_ego: Array, ranked: NDArray[np.int64], ego_yaw_rad: float) -> "_Polygons":
        """What faces the camera: bodies by rank; within a body by level, then far parts first, decals on their face."""
        surfaces = self._cast.surfaces
        rank = np.full(len(poses_ego), -1)
        rank[ranked] = np.arange(len(ranked))
        used = np.nonzero(rank[self._cast.owners] >= 0)[0]
        owners = self._cast.owners[used]
        turn = _camera_from_body(self._camera, poses_ego)
        feet = self._camera.points(np.column_stack([poses_ego[:, :2], np.zeros(len(poses_ego))]))
        corners = surfaces.corners_m[used] @ turn[owners].transpose(0, 2, 1) + feet[owners, None]
        normals = (turn[owners] @ surfaces.normals[used, :, None])[..., 0]
        parts = (turn[owners] @ surfaces.part_centers_m[used, :, None])[..., 0] + feet[owners]
        facing = ((normals * corners[:, 0]).sum(axis=1) < 0) & (corners[..., 2].max(axis=1) > NEAR_M)
        distance = np.linalg.norm(parts, axis=1)
        order = np.lexsort((surfaces.is_decal[used], -distance, surfaces.levels[used], rank[owners]))
        order = order[facing[order]]
        to_sun = self._camera.camera_from_ego[:3, :3] @ self._light.towards_sun(ego_yaw_rad)
        lit = self._light.shade(surfaces.colors[used[order]], normals[order] @ to_sun)
        veil = self._light.veil(np.linalg.norm(feet, axis=1)[owners[order]])[:, None]
        colors = (lit + (self._light.haze - lit) * veil).clip(0, 255)
        return _Polygons(corners[order], colors, owners[order], surfaces.is_decal[used[order]])

    def _paint(self, image: Image, polygons: "_Polygons") -> Sighting:
        """Fill the polygons; a second picture of labels tells what is seen of each body."""
        annotated = self._cast.annotated
        whole = np.zeros(annotated, dtype=np.int64)
        labels = np.full(image.shape[:2], -1, dtype=np.int16)
        ends = np.append(polygons.owners[1:] != polygons.owners[:-1], True)
        rows = zip(
            self._outlines(polygons.corners),
            polygons.colors.tolist(),
            polygons.owners.tolist(),
            polygons.is_decal.tolist(),
            ends.tolist(),
            strict=True,
        )
        for outline, color, owner, is_decal, is_last in rows:
            if len(outline) >= 3:
                cv2.fillConvexPoly(image, outline, color, cv2.LINE_AA, SUBPIXEL_BITS)
                if not is_decal:
                    cv2.fillConvexPoly(labels, outline, (owner,), shift=SUBPIXEL_BITS)
            if is_last and owner < annotated:
                whole[owner] = np.count_nonzero(labels == owner)
        shown = np.bincount((labels + 1).ravel(), minlength=annotated + 1)[1 : annotated + 1]
        return Sighting(shown, whole)

    def _outlines(self, corners: Array) -> list[NDArray[np.int32]]:
        """Pixels of each polygon; fewer than three where nothing is left in front of the near plane."""
        in_front = (corners[..., 2] > NEAR_M).all(axis=1)
        outlines = list(self._camera.fixed_point_pixels(np.where(in_front[:, None, None], corners, 1.0)))
        for number in np.nonzero(~in_front)[0].tolist():
            outlines[number] = self._camera.fixed_point_pixels(clip_near(corners[number]))
        return outlines


def _camera_from_body(camera: Camera, poses_ego: Array) -> Array:
    """(N, 3, 3) rotations."""
    turn = np.zeros((len(poses_ego), 3, 3))
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(poses_ego[:, 2])
    turn[:, 1, 0] = np.sin(poses_ego[:, 2])
    turn[:, 0, 1] = -turn[:, 1, 0]
    turn[:, 2, 2] = 1
    rotations: Array = camera.camera_from_ego[:3, :3] @ turn
    return rotations
