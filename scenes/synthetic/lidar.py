"""A spinning LiDAR: rays against upright boxes and the ground, nearest hit first."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RINGS = 32
COLUMNS = 240
ELEVATION_DEG = (-30.0, 10.0)
RANGE_M = 32.0
THINNED = 5
"""One return in so many is kept of the ground and of scenery: they say little, and the files stay small."""

GRAZE_M = 0.01
"""A ray that crosses less of a box than this gives no return."""

GROUND = -1


@dataclass(frozen=True, eq=False)
class Sweep:
    """One turn of the LiDAR.

    Attributes:
        points: (P, 5) float32: x, y, z in the LiDAR frame, intensity 0-255, ring.
        hits: (P,) int64 index of the box that was hit, or ``GROUND``.
    """

    points: NDArray[np.float32]
    hits: NDArray[np.int64]


def sweep(rng: np.random.Generator, ego_from_lidar: Array, poses_ego: Array, size_lwh_m: Array, things: int) -> Sweep:
    """Cast all rays of one turn.

    Args:
        rng: for range noise and intensity.
        ego_from_lidar: (4, 4).
        poses_ego: (N, 3) x, y, yaw of the boxes, in the ego frame.
        size_lwh_m: (N, 3).
        things: every return from the first so many boxes is kept.

    Every return from a box lies inside it, so counting points in boxes gives the number of hits.
    """
    directions = _rays()
    hits, enter, leave = _cast(directions @ ego_from_lidar[:3, :3].T, ego_from_lidar[:3, 3], poses_ego, size_lwh_m)
    is_thing = (hits != GROUND) & (hits < things)
    solid = (hits == GROUND) | (leave - enter > GRAZE_M)
    kept = solid & (enter < RANGE_M) & (is_thing | (np.arange(hits.size).reshape(hits.shape) % THINNED == 0))
    ring, column = np.nonzero(kept)
    hit, enter, leave = hits[kept], enter[kept], leave[kept]
    # A little inside the box, never through it: zero for the ground.
    distance = enter + np.minimum(rng.uniform(0.002, 0.04, len(hit)), (leave - enter) / 2)
    brightness = np.where(hit == GROUND, 12, 24 + (37 * (hit + 1)) % 150)
    intensity = np.round(brightness + rng.uniform(0, 10, len(hit)))
    points = directions[ring, column] * distance[:, None]
    return Sweep(np.column_stack([points, intensity, ring]).astype(np.float32), hit)


def _cast(rays: Array, origin: Array, poses_ego: Array, size_lwh_m: Array) -> tuple[NDArray[np.int64], Array, Array]:
    """What each ray hits first, where it enters that and where it leaves it; equal for the ground."""
    enter = np.where(rays[..., 2] < -1e-6, -origin[2] / np.minimum(rays[..., 2], -1e-6), np.inf)
    leave = np.where(np.isfinite(enter), enter, 0.0)
    hits = np.full(enter.shape, GROUND)
    azimuth = np.arctan2(rays[0, :, 1], rays[0, :, 0])
    gap = poses_ego[:, :2] - origin[:2]
    bearing = np.arctan2(gap[:, 1], gap[:, 0])
    distance, reach = np.linalg.norm(gap, axis=1), np.linalg.norm(size_lwh_m[:, :2], axis=1) / 2
    # The rings of a tilted LiDAR do not share their azimuth quite: two degrees to spare.
    half_angle = np.arcsin(np.clip(reach / np.maximum(distance, 1e-6), 0, 1)) + np.radians(2)
    half_angle[distance <= reach] = np.pi
    for box in np.nonzero(distance - reach < RANGE_M)[0]:
        turn = np.abs((azimuth - bearing[box] + np.pi) % (2 * np.pi) - np.pi)
        columns = np.nonzero(turn < half_angle[box])[0]
        near, far = _box_crossing(rays[:, columns], origin, poses_ego[box], size_lwh_m[box])
        ring, column = np.nonzero((near < far) & (near > 0) & (near < enter[:, columns]))
        enter[ring, columns[column]] = near[ring, column]
        leave[ring, columns[column]] = far[ring, column]
        hits[ring, columns[column]] = box
    return hits, enter, leave


def _rays() -> Array:
    """(RINGS, COLUMNS, 3) unit directions in the LiDAR frame."""
    elevation = np.radians(np.linspace(*ELEVATION_DEG, RINGS))[:, None]
    azimuth = (np.arange(COLUMNS) / COLUMNS * 2 - 1)[None] * np.pi
    flat = np.cos(elevation)
    return np.stack(
        [flat * np.cos(azimuth), flat * np.sin(azimuth), np.broadcast_to(np.sin(elevation), (RINGS, COLUMNS))], axis=-1
    )


def _box_crossing(rays: Array, origin: Array, pose: Array, size_lwh_m: Array) -> tuple[Array, Array]:
    """Distances at which each ray enters and leaves an upright box that stands on the ground."""
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    start = turn @ (origin - np.array([pose[0], pose[1], size_lwh_m[2] / 2]))
    direction = rays @ turn.T
    direction = np.where(np.abs(direction) < 1e-9, 1e-9, direction)
    half = size_lwh_m / 2
    one, other = (-half - start) / direction, (half - start) / direction
    return np.minimum(one, other).max(axis=-1), np.maximum(one, other).min(axis=-1)
