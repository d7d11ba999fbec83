"""Populates a scene: draws objects near the drive and keeps those that never touch another."""

from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.catalogue import KINDS
from scenes.synthetic.clock import Clock
from scenes.synthetic.motion import Track
from scenes.synthetic.occupancy import Occupancy
from scenes.synthetic.options import SENSED_RADIUS_M
from scenes.synthetic.rig import EGO_CENTER_FORWARD_M, EGO_SIZE_WLH_M, LIDAR_POSITION_M
from scenes.synthetic.scenery import Block, plan_blocks
from scenes.synthetic.things import PACES, STANDING, Pace, Spot, Thing, draw_size, draw_track
from scenes.synthetic.town import Town
from scenes.synthetic.view import ahead_of

Array = NDArray[np.float64]
T = TypeVar("T", bound=str)

BOXES_PER_KEYFRAME = (18.0, 38.0)
"""Wished for within reach of the sensors; about two thirds of them are ever seen."""
GAP_LW_M = np.array([0.35, 0.12])
"""Kept free around each object, on each side."""
EGO_GAP_LW_M = np.array([0.8, 0.3])
PATIENCE = 30
"""So many objects in a row that do not fit, and no more of their sort are tried."""


def populate(rng: np.random.Generator, town: Town, clock: Clock) -> tuple[tuple[Thing, ...], tuple[Block, ...]]:
    """Objects and scenery around a drive.

    Each class and pace gets its share of the boxes of every scene, as far as there is room.
    """
    times = _check_times(clock)
    ego = town.drive.poses(times)
    occupancy = Occupancy(len(times))
    half_lw = np.array([EGO_SIZE_WLH_M[1], EGO_SIZE_WLH_M[0]]) / 2
    occupancy.take(ahead_of(ego, EGO_CENTER_FORWARD_M), half_lw + EGO_GAP_LW_M)
    blocks = plan_blocks(rng, town, occupancy, ego)
    return _Placer(rng, town, clock, occupancy).fill(float(rng.uniform(*BOXES_PER_KEYFRAME))), blocks


class _Placer:
    """Draws objects one after the other and keeps those that fit."""

    def __init__(self, rng: np.random.Generator, town: Town, clock: Clock, occupancy: Occupancy) -> None:
        self._rng, self._town, self._clock, self._occupancy = rng, town, clock, occupancy
        self._times = _check_times(clock)
        self._ego = town.drive.poses(clock.lidar_s)
        self._lidar_xy_m = ahead_of(self._ego, LIDAR_POSITION_M[0])[:, :2]
        self._arcs_m = [road.curve.nearest_arc_m(self._ego[:, :2]) for road in town.roads]

    def fill(self, boxes_per_keyframe: float) -> tuple[Thing, ...]:
        """Always try the sort that lacks most of its share, until none lacks any or there is no more room."""
        sorts = [(name, pace) for name, kind in KINDS.items() for pace in (PACES if kind.top_mps > 0 else (STANDING,))]
        shares = np.array([KINDS[name].share * (pace.share if KINDS[name].top_mps > 0 else 1) for name, pace in sorts])
        wished = boxes_per_keyframe * len(self._ego) * shares / shares.sum()
        missing, failures = wished.copy(), np.zeros(len(sorts))
        things: list[Thing] = []
        while True:
            lacking = np.where(failures < PATIENCE, missing / wished, 0.0)
            number = int(np.argmax(lacking))
            if lacking[number] <= 0:
                return tuple(things)
            added = self._place(*sorts[number])
            failures[number] = 0 if added else failures[number] + 1
            missing[number] -= sum(self._keyframes_in_range(thing.lidar_poses) for thing in added)
            things += added

    def _keyframes_in_range(self, poses: Array) -> int:
        gap = np.linalg.norm(poses[:, :2] - self._lidar_xy_m, axis=1)
        return int((gap < SENSED_RADIUS_M).sum())

    def _place(self, name: str, pace: Pace) -> list[Thing]:
        """Try one object; barriers and cones come in rows."""
        kind = KINDS[name]
        place = _choose(self._rng, kind.places)
        category = _choose(self._rng, kind.categories)
        size = draw_size(self._rng, kind, category)
        track = draw_track(self._rng, kind, place, pace, self._spot())
        nowhere = np.zeros(0)
        blank = Thing(name, category, size, place, kind.rideable, 0, nowhere, nowhere, nowhere)
        if kind.top_mps > 0:
            return self._keep_if_free(blank, track)
        spacing = 0.4 + (size[0] if name == "barrier" else self._rng.uniform(1.2, 2.2))
        across = float(self._rng.choice([np.pi / 2, -np.pi / 2, 0.0], p=[0.45, 0.45, 0.1]))
        row: list[Thing] = []
        for number in range(int(self._rng.integers(1, 5))):
            facing = across + float(self._rng.normal(0, 0.06))
            row += self._keep_if_free(blank, replace(track, arc_m=track.arc_m + number * spacing, facing_rad=facing))
        return row

    def _keep_if_free(self, blank: Thing, track: Track) -> list[Thing]:
        half_lw = blank.size_wlh_m[[1, 0]] / 2 + GAP_LW_M
        poses, at_keyframes = track.poses(self._times), track.poses(self._clock.lidar_s)
        if not self._keyframes_in_range(at_keyframes) or not self._occupancy.is_free(poses, half_lw):
            return []
        self._occupancy.take(poses, half_lw)
        moves = track.speed.before_mps + track.speed.after_mps > 0
        camera_s = self._clock.camera_s
        return [
            replace(
                blank,
                has_rider=KINDS[blank.name].rideable and bool(moves or self._rng.uniform() < 0.6),
                look=int(self._rng.integers(2**31)),
                lidar_poses=at_keyframes,
                camera_poses=track.poses(camera_s.ravel()).reshape(*camera_s.shape, 3),
                speed_mps=track.speed.speed_mps(self._clock.lidar_s),
            )
        ]

    def _spot(self) -> Spot:
        """Somewhere within reach of the sensors at a keyframe drawn at random."""
        frame = int(self._rng.integers(len(self._ego)))
        order = self._rng.permutation(len(self._town.roads)).tolist()
        near = [number for number in order if self._town.roads[number].contains(self._ego[frame, :2], 22.0)]
        number = near[0] if near else 0
        arc_m = float(self._arcs_m[number][frame] + self._rng.uniform(-31, 31))
        return Spot(self._town.roads[number], arc_m, float(self._clock.lidar_s[frame]), self._clock.duration_s)


def _choose(rng: np.random.Generator, weights: dict[T, float]) -> T:
    options = list(weights)
    chances = np.array(list(weights.values()))
    return options[int(rng.choice(len(options), p=chances / chances.sum()))]


def _check_times(clock: Clock) -> Array:
    """Keyframes and the instants half-way between."""
    middles = (clock.lidar_s[1:] + clock.lidar_s[:-1]) / 2
    times: Array = np.sort(np.concatenate([clock.lidar_s, middles]))
    return times
