"""Back to front: in which order upright bodies on a plane must be painted so that nearer ones cover farther ones."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class PaintOrder:
    """Who can hide whom, for rectangles on the ground that do not overlap.

    Two disjoint rectangles are separated by the line along one of their eight edges; whichever lies on the viewer's
    side of that line cannot be hidden by the other.
    """

    def __init__(self, poses: Array, half_lw_m: Array) -> None:
        """Args: (N, 3) x, y, yaw and (N, 2) half length and half width."""
        signs = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]])
        self._poses, self._half_lw_m = poses, half_lw_m
        self._axes = _axes(poses[:, 2])
        corners = poses[:, None, :2] + (signs * half_lw_m[:, None]) @ self._axes
        local = np.einsum("abcj,aij->abci", corners[None] - poses[:, None, None, :2], self._axes)
        slack = 0.02
        limit = half_lw_m[:, None] - slack
        self._beyond = np.stack([(local.min(axis=2) >= limit), (local.max(axis=2) <= -limit)], axis=-1)

    def back_to_front(self, viewer_xy_m: Array, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        """The chosen bodies, ordered for a viewer at (2,); where bodies overlap or interlock, by distance."""
        viewer = np.einsum("aij,aj->ai", self._axes[chosen], viewer_xy_m - self._poses[chosen, :2])
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
