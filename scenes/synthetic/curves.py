"""Plane curves by arc length: the centre lines of roads and the path of the car that carries the sensors."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """A smooth curve in the ground plane.

    Attributes:
        arc_m: (K,) increasing arc lengths.
        xy_m: (K, 2) points, global frame.
        heading_rad: (K,) unwrapped direction of travel, counter-clockwise from global x.
    """

    arc_m: Array
    xy_m: Array
    heading_rad: Array

    def pose(self, arc_m: Array, left_m: Array | float = 0.0) -> Array:
        """(…, 3) global x, y and heading at these arc lengths, shifted to the left of the curve.

        Both ends go on straight.
        """
        inside = np.clip(arc_m, self.arc_m[0], self.arc_m[-1])
        heading = np.interp(inside, self.arc_m, self.heading_rad)
        beyond = arc_m - inside
        cos, sin = np.cos(heading), np.sin(heading)
        x = np.interp(inside, self.arc_m, self.xy_m[:, 0]) + beyond * cos - left_m * sin
        y = np.interp(inside, self.arc_m, self.xy_m[:, 1]) + beyond * sin + left_m * cos
        return np.stack([x, y, heading], axis=-1)

    def nearest_arc_m(self, xy_m: Array) -> Array:
        """(N,) arc length of the curve point nearest to each of (N, 2) points."""
        gap = np.linalg.norm(self.xy_m[None] - xy_m[:, None], axis=-1)
        nearest: Array = self.arc_m[gap.argmin(axis=1)]
        return nearest


def integrate_curvature(arc_m: Array, curvature_per_m: Array, start: Array) -> Curve:
    """The curve with this curvature, passing through pose ``start`` (x, y, heading) at arc length zero.

    Args:
        arc_m: (K,) evenly spaced, containing zero.
        curvature_per_m: (K,) positive to the left.
        start: (3,).
    """
    step = np.diff(arc_m, prepend=arc_m[0])
    heading = np.cumsum(curvature_per_m * step)
    xy = np.cumsum(step[:, None] * np.stack([np.cos(heading), np.sin(heading)], axis=-1), axis=0)
    origin = int(np.abs(arc_m).argmin())
    turn = start[2] - heading[origin]
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return Curve(arc_m, (xy - xy[origin]) @ rotation.T + start[:2], heading + turn)


def parallel(curve: Curve, left_m: float, arc_m: float) -> tuple[Curve, float]:
    """The curve this far to the left, with arc lengths of its own, and its arc length beside ``arc_m`` of ``curve``."""
    poses = curve.pose(curve.arc_m, left_m)
    steps = np.diff(poses[:, :2], axis=0, prepend=poses[:1, :2])
    own_arc_m = np.cumsum(np.hypot(steps[:, 0], steps[:, 1]))
    return Curve(own_arc_m, poses[:, :2], poses[:, 2]), float(np.interp(arc_m, curve.arc_m, own_arc_m))
