"""Back to front: in which order upright bodies on a plane must be painted so that nearer ones cover farther ones."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_SLACK_M = 0.02
"""Bodies may overlap by this much and still count as apart."""


class PaintOrder:
    """Who can hide whom, for rectangles on the ground that do not overlap.

    Two disjoint rectangles are separated by the line along one of their eight edges; whichever lies on the viewer's
    side of that line cannot be hidden by the other.
    """

    def __init__(self, poses: Array, half_lw_m: Array) -> None:
        """Args: (N, 3) x, y, yaw and (N, 2) half length and half width."""
        self._poses, self._half_lw_m = poses, half_lw_m
        self._axes = _axes(poses[:, 2])
        gap = poses[None, :, :2] - poses[:, None, :2]
        middle = np.stack([(gap * self._axes[:, None, axis]).sum(axis=-1) for axis in range(2)], axis=-1)
        turn = poses[None, :, 2] - poses[:, None, 2]
        cos, sin = np.abs(np.cos(turn)), np.abs(np.sin(turn))
        length, width = half_lw_m.T
        reach = np.stack([cos * length + sin * width, sin * length + cos * width], axis=-1)
        limit = half_lw_m[:, None] - _SLACK_M
        self._beyond = np.stack([middle - reach >= limit, middle + reach <= -limit], axis=-1)

    def back_to_front(self, viewer_xy_m: Array, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        """The chosen bodies, ordered for a viewer at (2,); where bodies overlap or interlock, by distance."""
        viewer = (self._axes[chosen] @ (viewer_xy_m - self._poses[chosen, :2])[..., None])[..., 0]
        half = self._half_lw_m[chosen]
        viewer_beyond = np.stack([viewer > half, viewer < -half], axis=-1)
        beyond = self._beyond[np.ix_(chosen, chosen)]
        other_in_front = (beyond & viewer_beyond[:, None]).any(axis=(2, 3))
        self_in_front = (beyond & ~viewer_beyond[:, None]).any(axis=(2, 3))
        in_front = self_in_front | other_in_front.T
        must_precede = in_front.T & ~in_front
        distance = np.linalg.norm(self._poses[chosen, :2] - viewer_xy_m, axis=1)
        return chosen[_topological(must_precede, distance)]


def _axes(yaw_rad: Array) -> Array:
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], -2)


def _topological(must_precede: NDArray[np.bool_], distance: Array) -> NDArray[np.int64]:
    """Order in which every a with ``must_precede[a, b]`` comes before b; cycles are cut at the farthest."""
    order: list[int] = []
    left = np.ones(len(distance), dtype=np.bool_)
    while left.any():
        ready = left & ~must_precede[left].any(axis=0)
        if not ready.any():
            ready = np.zeros_like(left)
            ready[np.argmax(np.where(left, distance, -np.inf))] = True
        batch = np.nonzero(ready)[0]
        order += batch[np.argsort(-distance[batch])].tolist()
        left &= ~ready
    return np.array(order, dtype=np.int64)
