"""How things move: a speed over time, along a path on the ground."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.curves import Curve

Array = NDArray[np.float64]

STANDING_BELOW_MPS = 0.3
"""Slower than this counts as standing still when an attribute is chosen."""


@dataclass(frozen=True)
class SpeedProfile:
    """One speed, then a steady change to another.

    Attributes:
        before_mps, after_mps: speeds before and after the change.
        change_s: when it begins.
        ramp_s: how long it takes, above zero.
    """

    before_mps: float
    after_mps: float
    change_s: float
    ramp_s: float

    def speed_mps(self, time_s: Array) -> Array:
        """(…) speed at these times."""
        progress = np.clip((time_s - self.change_s) / self.ramp_s, 0, 1)
        speed: Array = self.before_mps + (self.after_mps - self.before_mps) * progress
        return speed

    def travelled_m(self, time_s: Array) -> Array:
        """(…) distance covered since time zero, negative before it."""
        return self._integral(time_s) - self._integral(np.zeros(1))

    def _integral(self, time_s: Array) -> Array:
        since = np.maximum(time_s - self.change_s, 0)
        ramp = np.where(since < self.ramp_s, since**2 / (2 * self.ramp_s), since - self.ramp_s / 2)
        integral: Array = self.before_mps * time_s + (self.after_mps - self.before_mps) * ramp
        return integral


@dataclass(frozen=True, eq=False)
class Track:
    """The motion of one object along a curve.

    Attributes:
        curve: its path: beside the middle of a road, or straight across.
        arc_m: where it is at ``at_s``.
        at_s: a time.
        direction: +1 along the curve, -1 against it.
        facing_rad: heading of the object against its direction of travel.
        speed: how fast.
    """

    curve: Curve
    arc_m: float
    at_s: float
    direction: int
    facing_rad: float
    speed: SpeedProfile

    def poses(self, time_s: Array) -> Array:
        """(T, 3) global x, y, yaw at these times."""
        moved = self.speed.travelled_m(time_s) - self.speed.travelled_m(np.array([self.at_s]))
        poses = self.curve.pose(self.arc_m + self.direction * moved)
        poses[:, 2] += self.facing_rad + (0.0 if self.direction > 0 else np.pi)
        return poses


@dataclass(frozen=True, eq=False)
class Drive:
    """The motion of the sensor car.

    Attributes:
        path: the curve its rear axle follows.
        time_s: (K,) fine time grid.
        speed_mps: (K,) speed on it.
        arc_m: (K,) position along the path on it.
    """

    path: Curve
    time_s: Array
    speed_mps: Array
    arc_m: Array

    def poses(self, time_s: Array) -> Array:
        """(T, 3) global x, y, yaw of the rear axle."""
        return self.path.pose(np.interp(time_s, self.time_s, self.arc_m))

    def speeds_mps(self, time_s: Array) -> Array:
        """(T,) speed."""
        return np.interp(time_s, self.time_s, self.speed_mps)


def plan_drive(rng: np.random.Generator, path: Curve, begin_m: float, duration_s: float, top_mps: float) -> Drive:
    """A drive of varied speed that is at arc length ``begin_m`` at time zero; ``top_mps`` of zero stands still."""
    time = np.arange(-1.0, duration_s + 2.0, 0.02)
    knots = np.arange(-1.0, duration_s + 4.0, 2.5)
    wished = np.clip(top_mps * rng.uniform(-0.15, 1.0, len(knots)), 0, None)
    blend = np.interp(time, knots, np.arange(len(knots)))
    below = np.clip(blend.astype(np.int64), 0, len(knots) - 2)
    smooth = 0.5 - 0.5 * np.cos(np.pi * (blend - below))
    speed = wished[below] + (wished[below + 1] - wished[below]) * smooth
    arc = np.concatenate([[0.0], np.cumsum(0.02 * (speed[1:] + speed[:-1]) / 2)])
    return Drive(path, time, speed, begin_m + arc - np.interp(0.0, time, arc))
