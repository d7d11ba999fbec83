"""The streets of one scene and the drive through them.

From the middle of a road outwards: lanes (``LANE_M`` each), a kerb lane where some stand and some drive, a strip for
hedges and walls, a pavement, a second strip, a yard, and houses.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.curves import Array, Curve, integrate_curvature, parallel
from scenes.synthetic.motion import Drive, plan_drive

LANE_M = 3.5
KERB_LANE_M = 2.8
ROAD_BEHIND_M = 80.0
ROAD_AHEAD_M = 240.0
CROSS_HALF_LENGTH_M = 110.0


@dataclass(frozen=True, eq=False)
class Road:
    """A road: its middle line and its width.

    Attributes:
        curve: the middle line; traffic keeps to the right.
        lanes_per_side: 1 or 2.
        crossing_m: arc length at which another road crosses, None where none does.
    """

    curve: Curve
    lanes_per_side: int
    crossing_m: float | None

    @property
    def half_width_m(self) -> float:
        """From the middle line to the edge of the kerb lane."""
        return self.lanes_per_side * LANE_M + KERB_LANE_M

    def contains(self, xy_m: NDArray[np.float64], margin_m: float) -> bool:
        """Whether a point lies on this road, or closer to it than the margin."""
        gap = np.linalg.norm(self.curve.xy_m - xy_m, axis=1).min()
        return bool(gap < self.half_width_m + margin_m)


@dataclass(frozen=True, eq=False)
class Town:
    """The streets of one scene, the road the drive begins on first, and the drive."""

    roads: tuple[Road, ...]
    drive: Drive


def plan_town(rng: np.random.Generator, duration_s: float) -> Town:
    """Streets and a drive: along a straight or bending road, around a corner, or standing."""
    kind = str(rng.choice(["straight", "bend", "turn", "stand"], p=[0.3, 0.32, 0.26, 0.12]))
    start = np.array([*rng.uniform(300, 1500, 2), rng.uniform(-np.pi, np.pi)])
    lanes = int(rng.integers(1, 3))
    crossing = rng.uniform(10, 24) if kind == "turn" else rng.uniform(12, 60)
    has_cross_road = kind == "turn" or rng.uniform() < 0.6
    arc = np.arange(-ROAD_BEHIND_M, ROAD_AHEAD_M, 0.5)
    main = integrate_curvature(arc, _curvature(rng, arc, kind), start)
    if not has_cross_road:
        roads: tuple[Road, ...] = (Road(main, lanes, None),)
    else:
        roads = (Road(main, lanes, crossing), _cross_road(main, crossing, int(rng.integers(1, 3))))
    if kind == "turn":
        path, begin_m = _corner(main, crossing, bool(rng.uniform() < 0.5)), 0.0
    else:
        path, begin_m = parallel(main, -LANE_M / 2, 0.0)
    top_mps = {"stand": 0.0, "turn": rng.uniform(4.5, 7.0)}.get(kind, rng.uniform(4.0, 11.0))
    return Town(roads, plan_drive(rng, path, begin_m, duration_s, top_mps))


def _curvature(rng: np.random.Generator, arc_m: Array, kind: str) -> Array:
    if kind != "bend":
        return np.zeros_like(arc_m)
    bends = np.zeros_like(arc_m)
    begin = rng.uniform(-10, 15)
    while begin < arc_m[-1]:
        length = rng.uniform(25, 45)
        inside = np.clip((arc_m - begin) / length, 0, 1)
        bends += rng.choice([-1, 1]) * rng.uniform(0.008, 0.025) * np.sin(np.pi * inside) ** 2
        begin += length + rng.uniform(0, 25)
    return bends


def _cross_road(main: Curve, crossing_m: float, lanes: int) -> Road:
    x, y, heading = main.pose(np.array([crossing_m]))[0]
    arc = np.arange(-CROSS_HALF_LENGTH_M, CROSS_HALF_LENGTH_M, 0.5)
    curve = integrate_curvature(arc, np.zeros_like(arc), np.array([x, y, heading + np.pi / 2]))
    return Road(curve, lanes, 0.0)


def _corner(main: Curve, crossing_m: float, to_the_left: bool) -> Curve:
    """Along the right lane of a straight road, a quarter circle, then the right lane of the road that crosses it."""
    side = 1 if to_the_left else -1
    radius_m = 10.0 if to_the_left else 7.0
    begin_m = crossing_m + side * LANE_M / 2 - radius_m
    arc = np.arange(-ROAD_BEHIND_M, ROAD_AHEAD_M, 0.05)
    turning = (arc >= begin_m) & (arc < begin_m + radius_m * np.pi / 2)
    start = main.pose(np.zeros(1), -LANE_M / 2)[0]
    return integrate_curvature(arc, np.where(turning, side / radius_m, 0.0), start)
