"""Draws what a camera sees: backdrop, ground, shadows, then bodies from back to front."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.backdrop import BOTTOM_DEG, HEIGHT, TOP_DEG, WIDTH
from scenes.synthetic.ground import GroundMap
from scenes.synthetic.painter_order import PaintOrder
from scenes.synthetic.surfaces import Surfaces

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

NEAR_M = 0.25
FAR_M = 90.0
BLURRED_BEYOND_M = 16.0
HAZE_M = 160.0
SHADOW = 0.62
_SHIFT = 4


@dataclass(frozen=True, eq=False)
class Light:
    """The weather of a scene.

    Attributes:
        towards_sun: (3,) unit vector, global frame.
        ambient: share of light that comes from everywhere, 0-1.
        tint: (3,) colour of the light, around 1.
        haze: (3,) RGB of the far distance.
    """

    towards_sun: Array
    ambient: float
    tint: Array
    haze: Array


@dataclass(frozen=True, eq=False)
class Stage:
    """All bodies of a scene.

    Attributes:
        surfaces: of all bodies, one after the other, each in its own frame.
        owners: (Q,) int64, which body a surface belongs to.
        size_lwh_m: (N, 3) bounding boxes.
        things: the first so many bodies are the annotated ones.
    """

    surfaces: Surfaces
    owners: NDArray[np.int64]
    size_lwh_m: Array
    things: int


@dataclass(frozen=True, eq=False)
class View:
    """Where a picture is taken from.

    Attributes:
        intrinsics: (3, 3).
        camera_from_ego: (4, 4).
        ego_pose: (3,) x, y, yaw of the car when the picture is taken.
    """

    intrinsics: Array
    camera_from_ego: Array
    ego_pose: Array


@dataclass(frozen=True, eq=False)
class Sighting:
    """How much of each annotated body a picture shows.

    Attributes:
        shown: (M,) int64 visible pixels.
        whole: (M,) int64 pixels that would be visible if nothing stood before it.
    """

    shown: NDArray[np.int64]
    whole: NDArray[np.int64]


class SceneRenderer:
    """Renders the pictures of one camera in one scene; what depends on the calibration alone is kept."""

    def __init__(self, stage: Stage, light: Light, ground: GroundMap, backdrop: Image) -> None:
        self._stage, self._light, self._ground, self._backdrop = stage, light, ground, backdrop

    def render(self, view: View, poses: Array, order: PaintOrder, size_wh: tuple[int, int]) -> tuple[Image, Sighting]:
        """One picture.

        Args:
            poses: (N, 3) x, y, yaw of all bodies when the picture is taken.
            order: of the same bodies.
            size_wh: width and height in pixels.

        Returns:
            (H, W, 3) uint8 RGB, and what it shows of the annotated bodies.
        """
        relative = _relative_poses(poses, view.ego_pose)
        camera_m = np.linalg.inv(view.camera_from_ego)[:3, 3]
        chosen = self._in_view(view, relative, size_wh)
        viewer = _to_global(camera_m[:2], view.ego_pose)
        image = self._surroundings(view, size_wh)
        self._cast_shadows(image, view, relative[chosen], self._stage.size_lwh_m[chosen])
        ranked = order.back_to_front(viewer, chosen)
        return image, self._paint_bodies(image, view, relative, ranked)

    def _in_view(self, view: View, relative: Array, size_wh: tuple[int, int]) -> NDArray[np.int64]:
        """Bodies whose bounding sphere may touch the picture."""
        size = self._stage.size_lwh_m
        centers = np.concatenate([relative[:, :2], size[:, 2:] / 2], axis=1)
        points = centers @ view.camera_from_ego[:3, :3].T + view.camera_from_ego[:3, 3]
        radius = np.linalg.norm(size, axis=1) / 2
        focal = view.intrinsics[0, 0]
        reach = np.maximum(view.intrinsics[0, 2], size_wh[0] - view.intrinsics[0, 2]) / focal
        outside = (np.abs(points[:, 0]) - reach * points[:, 2]) / np.hypot(1, reach) > radius
        near = (points[:, 2] > -radius) & (np.hypot(relative[:, 0], relative[:, 1]) < FAR_M)
        return np.nonzero(near & ~outside)[0]

    def _surroundings(self, view: View, size_wh: tuple[int, int]) -> Image:
        """Ground below the horizon, backdrop above it."""
        rays, distance = _rays(view, size_wh)
        azimuth = np.arctan2(rays[..., 1], rays[..., 0]) + view.ego_pose[2]
        column = (azimuth / (2 * np.pi) + 0.5) % 1.0 * WIDTH
        elevation = np.degrees(np.arctan2(rays[..., 2], np.hypot(rays[..., 0], rays[..., 1])))
        row = (TOP_DEG - elevation) / (TOP_DEG - BOTTOM_DEG) * (HEIGHT - 1)
        image = cv2.remap(
            self._backdrop,
            column.astype(np.float32),
            row.astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        map_from_image = self._ground.map_from_global @ np.linalg.inv(_image_from_global_ground(view))
        for picture, mask in (
            (self._ground.blurred, distance >= BLURRED_BEYOND_M),
            (self._ground.sharp, distance < BLURRED_BEYOND_M),
        ):
            warped = cv2.warpPerspective(
                picture, map_from_image, size_wh, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=1
            )
            cv2.copyTo(warped, (mask & np.isfinite(distance)).astype(np.uint8), image)
        veil = np.where(np.isfinite(distance), 1 - np.exp(-distance / HAZE_M), 0.0)[..., None]
        lit = image * self._light.tint
        hazed: Image = (lit + (self._light.haze - lit) * veil).clip(0, 255).astype(np.uint8)
        return hazed

    def _cast_shadows(self, image: Image, view: View, relative: Array, size_lwh_m: Array) -> None:
        sun = self._light.towards_sun
        azimuth = np.arctan2(sun[1], sun[0]) - view.ego_pose[2]
        length = np.minimum(size_lwh_m[:, 2], 3.0) * np.hypot(sun[0], sun[1]) / sun[2]
        away = -np.stack([np.cos(azimuth), np.sin(azimuth)]) * length[:, None]
        feet = _footprints(relative, size_lwh_m)
        outlines = np.concatenate([feet, feet + away[:, None]], axis=1)
        mask = np.zeros(image.shape[:2], dtype=np.uint8)
        for outline in outlines.astype(np.float32):
            hull = cv2.convexHull(outline)[:, 0]
            points = np.concatenate([hull, np.zeros((len(hull), 1))], axis=1)
            camera = points @ view.camera_from_ego[:3, :3].T + view.camera_from_ego[:3, 3]
            polygon = _clip_near(camera)
            if len(polygon) >= 3:
                cv2.fillConvexPoly(mask, _fixed_point(polygon, view.intrinsics), (1,), shift=_SHIFT)
        shaded = mask > 0
        image[shaded] = (image[shaded] * SHADOW).astype(np.uint8)

    def _paint_bodies(self, image: Image, view: View, relative: Array, ranked: NDArray[np.int64]) -> Sighting:
        corners, colors, owners, is_decal = self._polygons(view, relative, ranked)
        things = self._stage.things
        whole = np.zeros(things, dtype=np.int64)
        labels = np.full(image.shape[:2], -1, dtype=np.int16)
        inside = corners[..., 2].min(axis=1) > NEAR_M if len(corners) else np.zeros(0, dtype=np.bool_)
        pixels = _fixed_point(np.where(inside[:, None, None], corners, 1.0), view.intrinsics)
        previous = -1
        paints = zip(corners, pixels, colors.tolist(), owners.tolist(), is_decal.tolist(), inside.tolist(), strict=True)
        for corner, pixel, color, owner, decal, whole_polygon in paints:
            polygon = pixel
            if not whole_polygon:
                clipped = _clip_near(corner)
                if len(clipped) < 3:
                    continue
                polygon = _fixed_point(clipped, view.intrinsics)
            if owner != previous and 0 <= previous < things:
                whole[previous] = np.count_nonzero(labels == previous)
            previous = owner
            cv2.fillConvexPoly(image, polygon, color, cv2.LINE_AA, _SHIFT)
            if not decal:
                cv2.fillConvexPoly(labels, polygon, (owner,), shift=_SHIFT)
        if 0 <= previous < things:
            whole[previous] = np.count_nonzero(labels == previous)
        shown = np.bincount((labels + 1).ravel(), minlength=things + 1)[1 : things + 1]
        return Sighting(shown, whole)

    def _polygons(
        self, view: View, relative: Array, ranked: NDArray[np.int64]
    ) -> tuple[Array, Array, NDArray[np.int64], NDArray[np.bool_]]:
        """Front-facing surfaces in painting order: camera-frame corners, colours, owners, whether a decal."""
        surfaces, stage = self._stage.surfaces, self._stage
        rank = np.full(len(stage.size_lwh_m), -1)
        rank[ranked] = np.arange(len(ranked))
        used = np.nonzero(rank[stage.owners] >= 0)[0]
        owners = stage.owners[used]
        yaw = relative[owners, 2]
        turn = np.zeros((len(used), 3, 3))
        turn[:, 0, 0] = turn[:, 1, 1] = np.cos(yaw)
        turn[:, 1, 0] = np.sin(yaw)
        turn[:, 0, 1] = -turn[:, 1, 0]
        turn[:, 2, 2] = 1
        to_camera = view.camera_from_ego[:3, :3] @ turn
        offset = np.concatenate([relative[owners, :2], np.zeros((len(used), 1))], axis=1)
        shift = offset @ view.camera_from_ego[:3, :3].T + view.camera_from_ego[:3, 3]
        corners = surfaces.corners_m[used] @ to_camera.transpose(0, 2, 1) + shift[:, None]
        normals = np.einsum("qij,qj->qi", to_camera, surfaces.normals[used])
        facing = (np.einsum("qi,qi->q", normals, corners[:, 0]) < 0) & (corners[..., 2].max(axis=1) > NEAR_M)
        parts = np.einsum("qij,qj->qi", to_camera, surfaces.part_centers_m[used]) + shift
        depth = np.linalg.norm(parts, axis=1)
        keys = (surfaces.is_decal[used], -depth, surfaces.levels[used], rank[owners])
        order = np.lexsort(keys)
        order = order[facing[order]]
        colors = self._shade(surfaces.colors[used[order]], normals[order], view, np.linalg.norm(shift, axis=1)[order])
        return corners[order], colors, owners[order], surfaces.is_decal[used[order]]

    def _shade(self, colors: Array, camera_normals: Array, view: View, distance: Array) -> Array:
        sun = self._light.towards_sun
        azimuth = np.arctan2(sun[1], sun[0]) - view.ego_pose[2]
        flat = np.hypot(sun[0], sun[1])
        sun_camera = view.camera_from_ego[:3, :3] @ np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), sun[2]])
        diffuse = np.clip(camera_normals @ sun_camera, 0, 1)
        light = self._light.ambient + (1.25 - self._light.ambient) * diffuse
        lit = colors * light[:, None] * self._light.tint
        veil = 1 - np.exp(-distance / HAZE_M)[:, None]
        hazed: Array = (lit + (self._light.haze - lit) * veil).clip(0, 255)
        return hazed


def _rays(view: View, size_wh: tuple[int, int]) -> tuple[Array, Array]:
    """(H, W, 3) viewing directions in the ego frame, and (H, W) distance to the ground, infinite above the horizon."""
    columns, rows = np.meshgrid(np.arange(size_wh[0]), np.arange(size_wh[1]))
    pixels = np.stack([columns, rows, np.ones_like(columns)], axis=-1).astype(np.float64)
    ego_from_camera = np.linalg.inv(view.camera_from_ego)
    rays = pixels @ (ego_from_camera[:3, :3] @ np.linalg.inv(view.intrinsics)).T
    down = np.minimum(rays[..., 2], -1e-9)
    flat = np.hypot(rays[..., 0], rays[..., 1]) * ego_from_camera[2, 3] / -down
    return rays, np.where(rays[..., 2] < -0.012, flat, np.inf)


def _image_from_global_ground(view: View) -> Array:
    """(3, 3) homography from global x, y to homogeneous pixels."""
    x, y, yaw = view.ego_pose
    cos, sin = np.cos(yaw), np.sin(yaw)
    ego_from_global = np.array([[cos, sin, -cos * x - sin * y], [-sin, cos, sin * x - cos * y], [0, 0, 1]])
    camera_from_ground = view.camera_from_ego[:3, [0, 1, 3]]
    homography: Array = view.intrinsics @ camera_from_ground @ ego_from_global
    return homography


def _relative_poses(poses: Array, ego_pose: Array) -> Array:
    """(N, 3) global poses in the ego frame."""
    cos, sin = np.cos(ego_pose[2]), np.sin(ego_pose[2])
    gap = poses[:, :2] - ego_pose[:2]
    return np.stack(
        [cos * gap[:, 0] + sin * gap[:, 1], cos * gap[:, 1] - sin * gap[:, 0], poses[:, 2] - ego_pose[2]], axis=1
    )


def _to_global(xy_ego_m: Array, ego_pose: Array) -> Array:
    cos, sin = np.cos(ego_pose[2]), np.sin(ego_pose[2])
    moved: Array = ego_pose[:2] + np.array([[cos, -sin], [sin, cos]]) @ xy_ego_m
    return moved


def _footprints(poses: Array, size_lwh_m: Array) -> Array:
    """(N, 4, 2) corners on the ground."""
    signs = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]])
    local = signs * size_lwh_m[:, None, :2] / 2
    cos, sin = np.cos(poses[:, 2])[:, None], np.sin(poses[:, 2])[:, None]
    x = poses[:, :1] + cos * local[..., 0] - sin * local[..., 1]
    y = poses[:, 1:2] + sin * local[..., 0] + cos * local[..., 1]
    return np.stack([x, y], axis=-1)


def _clip_near(polygon: Array) -> Array:
    """The part of a camera-frame polygon (K, 3) that lies in front of the near plane; perhaps empty."""
    kept: list[Array] = []
    for start, end in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if start[2] > NEAR_M:
            kept.append(start)
        if (start[2] > NEAR_M) != (end[2] > NEAR_M):
            share = (NEAR_M - start[2]) / (end[2] - start[2])
            kept.append(start + share * (end - start) + np.array([0, 0, 1e-9]))
    return np.array(kept).reshape(-1, 3)


def _fixed_point(polygons: Array, intrinsics: Array) -> NDArray[np.int32]:
    """Pixels of camera-frame points (…, 3), as OpenCV's fixed-point integers."""
    focal = np.array([intrinsics[0, 0], intrinsics[1, 1]])
    pixels = polygons[..., :2] / polygons[..., 2:] * focal + intrinsics[:2, 2]
    fixed: NDArray[np.int32] = np.round(pixels * 2**_SHIFT).clip(-(2**24), 2**24).astype(np.int32)
    return fixed
