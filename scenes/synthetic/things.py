"""Annotated objects: what they are and how they come to move."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.catalogue import Kind, Place
from scenes.synthetic.curves import Curve, parallel
from scenes.synthetic.motion import SpeedProfile, Track
from scenes.synthetic.town import LANE_M, Road

Array = NDArray[np.float64]

SPEED_CHANGE_SHARE = 0.25
SLOW_PLACES: tuple[Place, ...] = ("yard", "pavement")
SLOW_PLACES_TOP_MPS = 5.0


@dataclass(frozen=True)
class Pace:
    """A range of speeds, as fractions of the top speed of a kind, and the share of the boxes that move so."""

    low: float
    high: float
    share: float


PACES = (Pace(0.0, 0.0, 0.38), Pace(0.08, 0.4, 0.31), Pace(0.4, 1.0, 0.31))
"""Every kind that can move is found at each pace, at the same places and with the same headings."""
STANDING = PACES[0]


@dataclass(frozen=True, eq=False)
class Thing:
    """One annotated object and its motion through the scene.

    Attributes:
        name: detection class.
        category: nuScenes category.
        size_wlh_m: (3,).
        place: where it was put; tells parked from stopped.
        has_rider: of a bicycle or motorcycle.
        look: seed of its colours.
        lidar_poses: (F, 3) x, y, yaw at the keyframes, global frame.
        camera_poses: (F, 6, 3) when each camera fires.
        speed_mps: (F,) at the keyframes.
    """

    name: str
    category: str
    size_wlh_m: Array
    place: Place
    has_rider: bool
    look: int
    lidar_poses: Array
    camera_poses: Array
    speed_mps: Array


@dataclass(frozen=True, eq=False)
class Spot:
    """Somewhere near the drive: a point of a road at an instant of a scene that lasts so long."""

    road: Road
    arc_m: float
    at_s: float
    duration_s: float


def draw_size(rng: np.random.Generator, kind: Kind, category: str) -> Array:
    """(3,) width, length, height of one object of this kind."""
    size = np.array(kind.size_wlh_m) * rng.normal(1, kind.size_spread, 3).clip(0.7, 1.35)
    child = 0.68 if category == "human.pedestrian.child" else 1.0
    rounded: Array = np.round(size * child, 3)
    return rounded


def draw_track(rng: np.random.Generator, kind: Kind, place: Place, pace: Pace, spot: Spot) -> Track:
    """A motion that passes the spot, keeping to this kind of place."""
    side = int(rng.choice([-1, 1]))
    left = side * _offset_m(rng, spot.road, place)
    speed = _draw_speed(rng, _top_mps(kind, place), pace, spot.duration_s)
    direction = -side if place in ("lane", "kerb") else int(rng.choice([-1, 1]))
    facing = float(rng.normal(0, 0.15 if kind.top_mps < SLOW_PLACES_TOP_MPS else 0.04))
    if place == "crossing":
        turn = np.pi / 2 + rng.normal(0, 0.2)
    elif place == "yard" and rng.uniform() < 0.5:
        turn = rng.uniform(-np.pi, np.pi)
    else:
        path, arc_m = parallel(spot.road.curve, left, spot.arc_m)
        return Track(path, arc_m, spot.at_s, direction, facing, speed)
    start = spot.road.curve.pose(np.array([spot.arc_m]), left)[0]
    line = _straight(start + np.array([0, 0, turn]))
    return Track(line, 0.0, spot.at_s, direction, facing, speed)


def _top_mps(kind: Kind, place: Place) -> float:
    return min(kind.top_mps, SLOW_PLACES_TOP_MPS) if place in SLOW_PLACES else kind.top_mps


def _draw_speed(rng: np.random.Generator, top_mps: float, pace: Pace, duration_s: float) -> SpeedProfile:
    first = second = float(rng.uniform(pace.low, pace.high) * top_mps)
    if rng.uniform() < SPEED_CHANGE_SHARE:
        other = PACES[int(rng.integers(len(PACES)))]
        second = float(rng.uniform(other.low, other.high) * top_mps)
    return SpeedProfile(first, second, float(rng.uniform(0, max(duration_s, 0.5))), float(rng.uniform(1.0, 3.0)))


def _offset_m(rng: np.random.Generator, road: Road, place: Place) -> float:
    """Distance from the middle line at which something of this place keeps."""
    edge = road.half_width_m
    if place == "lane":
        return float((rng.integers(road.lanes_per_side) + 0.5) * LANE_M + rng.normal(0, 0.2))
    spans = {"kerb": (edge - 1.6, edge - 1.2), "pavement": (edge + 1.7, edge + 3.7), "yard": (edge + 6, edge + 12.5)}
    return float(rng.uniform(*spans.get(place, (0, edge + 4))))


def _straight(pose: Array) -> Curve:
    step = np.array([np.cos(pose[2]), np.sin(pose[2])])
    return Curve(np.array([0.0, 1.0]), np.stack([pose[:2], pose[:2] + step]), np.full(2, pose[2]))
