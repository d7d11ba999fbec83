"""Populates a scene: what stands and moves where, kept apart at all times."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.catalogue import KINDS, Kind, Place
from scenes.synthetic.clock import Clock
from scenes.synthetic.curves import Array, Curve
from scenes.synthetic.motion import SpeedProfile, Track
from scenes.synthetic.occupancy import Occupancy
from scenes.synthetic.options import SENSED_RADIUS_M
from scenes.synthetic.rig import EGO_CENTER_FORWARD_M, EGO_SIZE_WLH_M, LIDAR_POSITION_M
from scenes.synthetic.scenery import Block, plan_blocks
from scenes.synthetic.town import LANE_M, Road, Town

T = TypeVar("T", bound=str)

STANDING_SHARE = 0.4
SPEED_CHANGE_SHARE = 0.25
GAP_LW_M = np.array([0.35, 0.12])
"""Kept free around each object, on each side."""


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
class Population:
    """Everything in a scene that can hide or be hidden."""

    things: tuple[Thing, ...]
    blocks: tuple[Block, ...]


def populate(rng: np.random.Generator, town: Town, clock: Clock) -> Population:
    """Fill the surroundings of the drive until its keyframes see enough of every class.

    Classes are drawn by their share of the boxes so far, so that each has some in every scene.
    """
    times = _check_times(clock)
    ego = town.drive.poses(times)
    occupancy = Occupancy(len(times))
    half_lw = np.array([EGO_SIZE_WLH_M[1], EGO_SIZE_WLH_M[0]]) / 2 + (0.8, 0.3)
    occupancy.take(_ahead(ego, EGO_CENTER_FORWARD_M), half_lw)
    blocks = plan_blocks(rng, town, occupancy, ego)
    placer = _Placer(rng, town, clock, occupancy)
    return Population(placer.fill(wished_per_frame=rng.uniform(30, 48)), blocks)


class _Placer:
    """Draws objects one after the other and keeps those that fit."""

    def __init__(self, rng: np.random.Generator, town: Town, clock: Clock, occupancy: Occupancy) -> None:
        self._rng, self._town, self._clock, self._occupancy = rng, town, clock, occupancy
        self._times = _check_times(clock)
        self._ego = town.drive.poses(clock.lidar_s)
        self._lidar_xy = _ahead(self._ego, LIDAR_POSITION_M[0])[:, :2]
        self._arcs = [road.curve.nearest_arc_m(self._ego[:, :2]) for road in town.roads]

    def fill(self, wished_per_frame: float) -> tuple[Thing, ...]:
        things: list[Thing] = []
        shares = np.array([kind.share for kind in KINDS.values()])
        wished = wished_per_frame * len(self._lidar_xy) * shares / shares.sum()
        missing = wished.copy()
        failures = np.zeros(len(KINDS))
        while (missing > 0).any() and failures.min() < 25:
            number = int(np.argmax(np.where(failures < 25, missing / wished, -np.inf)))
            if missing[number] <= 0:
                break
            added = self._place_group(list(KINDS)[number])
            failures[number] = 0 if added else failures[number] + 1
            things += added
            missing[number] -= sum(self._frames_in_range(thing) for thing in added)
        return tuple(things)

    def _frames_in_range(self, thing: Thing) -> int:
        gap = np.linalg.norm(thing.lidar_poses[:, :2] - self._lidar_xy, axis=1)
        return int((gap < SENSED_RADIUS_M).sum())

    def _place_group(self, name: str) -> list[Thing]:
        """Try one object; barriers and cones come in rows."""
        kind = KINDS[name]
        size = np.array(kind.size_wlh_m) * self._rng.normal(1, kind.size_spread, 3).clip(0.7, 1.35)
        place: Place = _choice(self._rng, kind.places)
        track = self._track(kind, place)
        if kind.top_mps > 0:
            return self._accept(name, size, place, track)
        spacing = 0.4 + (size[0] if name == "barrier" else self._rng.uniform(1.2, 2.2))
        facing = float(self._rng.choice([np.pi / 2, -np.pi / 2, 0.0], p=[0.45, 0.45, 0.1]))
        row: list[Thing] = []
        for number in range(int(self._rng.integers(1, 5))):
            tilt = facing + self._rng.normal(0, 0.06)
            next_track = Track(
                track.curve, track.left_m, track.arc_m + number * spacing, 0.0, track.direction, tilt, track.speed
            )
            row += self._accept(name, size, place, next_track)
        return row

    def _accept(self, name: str, size_wlh_m: Array, place: Place, track: Track) -> list[Thing]:
        half_lw = size_wlh_m[[1, 0]] / 2 + GAP_LW_M
        poses = track.poses(self._times)
        if not self._occupancy.is_free(poses, half_lw):
            return []
        self._occupancy.take(poses, half_lw)
        kind = KINDS[name]
        category = _choice(self._rng, kind.categories)
        child = 0.68 if category == "human.pedestrian.child" else 1.0
        return [
            Thing(
                name=name,
                category=category,
                size_wlh_m=np.round(size_wlh_m * child, 3),
                place=place,
                has_rider=name in ("bicycle", "motorcycle")
                and bool(track.speed.before_mps + track.speed.after_mps > 0 or self._rng.uniform() < 0.5),
                look=int(self._rng.integers(2**31)),
                lidar_poses=track.poses(self._clock.lidar_s),
                camera_poses=track.poses(self._clock.camera_s.ravel()).reshape(*self._clock.camera_s.shape, 3),
                speed_mps=track.speed.speed_mps(self._clock.lidar_s),
            )
        ]

    def _track(self, kind: Kind, place: Place) -> Track:
        """A motion that is near the drive at a keyframe drawn at random."""
        rng = self._rng
        step = int(rng.integers(len(self._ego)))
        number = self._nearby_road(step)
        road, arc = self._town.roads[number], float(self._arcs[number][step] + rng.uniform(-31, 31))
        side = int(rng.choice([-1, 1]))
        left = side * _offset_m(rng, road, place)
        slow = place in ("yard", "pavement") and kind.top_mps > 4
        speed = _speed(rng, 5.0 if slow else kind.top_mps, self._clock.duration_s)
        direction = -side if place in ("lane", "kerb") else int(rng.choice([-1, 1]))
        facing = rng.normal(0, 0.04 if kind.top_mps > 4 else 0.15)
        at_s = float(self._clock.lidar_s[step])
        askew = place == "crossing" or (place == "yard" and rng.uniform() < 0.5)
        if not askew:
            return Track(road.curve, left, arc, at_s, direction, facing, speed)
        pose = road.curve.pose(np.array([arc]), left)[0]
        turn = np.pi / 2 + rng.normal(0, 0.2) if place == "crossing" else rng.uniform(-np.pi, np.pi)
        return Track(_straight(pose + np.array([0, 0, turn])), 0.0, 0.0, at_s, direction, facing, speed)

    def _nearby_road(self, step: int) -> int:
        order = self._rng.permutation(len(self._town.roads))
        for number in order:
            road = self._town.roads[number]
            if road.contains(self._ego[step, :2], 22.0):
                return int(number)
        return 0


def _choice(rng: np.random.Generator, weights: dict[T, float]) -> T:
    options = list(weights)
    chances = np.array(list(weights.values()))
    return options[int(rng.choice(len(options), p=chances / chances.sum()))]


def _offset_m(rng: np.random.Generator, road: Road, place: Place) -> float:
    """Distance from the middle line at which something of this place keeps."""
    edge = road.half_width_m
    if place == "lane":
        return float((rng.integers(road.lanes_per_side) + 0.5) * LANE_M + rng.normal(0, 0.2))
    if place == "kerb":
        return float(edge - rng.uniform(1.2, 1.6))
    if place == "pavement":
        return float(edge + rng.uniform(1.7, 3.7))
    if place == "yard":
        return float(edge + rng.uniform(6.0, 12.5))
    return float(rng.uniform(0, edge + 4))


def _speed(rng: np.random.Generator, top_mps: float, duration_s: float) -> SpeedProfile:
    def draw() -> float:
        return 0.0 if rng.uniform() < STANDING_SHARE else float(rng.uniform(0.08, 1.0) * top_mps)

    first = draw()
    second = draw() if rng.uniform() < SPEED_CHANGE_SHARE else first
    return SpeedProfile(first, second, float(rng.uniform(0, max(duration_s, 0.5))), float(rng.uniform(1.0, 3.0)))


def _straight(pose: Array) -> Curve:
    step = np.array([np.cos(pose[2]), np.sin(pose[2])])
    return Curve(np.array([0.0, 1.0]), np.stack([pose[:2], pose[:2] + step]), np.full(2, pose[2]))


def _check_times(clock: Clock) -> Array:
    middles = (clock.lidar_s[1:] + clock.lidar_s[:-1]) / 2
    times: Array = np.sort(np.concatenate([clock.lidar_s, middles]))
    return times


def _ahead(poses: NDArray[np.float64], forward_m: float) -> Array:
    moved = poses.copy()
    moved[:, 0] += forward_m * np.cos(poses[:, 2])
    moved[:, 1] += forward_m * np.sin(poses[:, 2])
    return moved
