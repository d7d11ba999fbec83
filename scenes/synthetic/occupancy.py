"""What ground is taken, when: keeps the footprints of a scene apart, so that nothing drives through anything."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Occupancy:
    """Rectangles on the ground, each moving through the same sequence of times."""

    def __init__(self, steps: int) -> None:
        self._poses = np.zeros((0, steps, 3))
        self._half_lw_m = np.zeros((0, 2))

    def is_free(self, poses: Array, half_lw_m: Array) -> bool:
        """Whether a rectangle meets none of those taken.

        Args:
            poses: (T, 3) x, y, yaw at each time.
            half_lw_m: (2,) half length and half width, with whatever margin is wanted.
        """
        reach = np.hypot(*half_lw_m) + np.hypot(self._half_lw_m[:, 0], self._half_lw_m[:, 1])
        gap = poses[None, :, :2] - self._poses[..., :2]
        close = (gap**2).sum(axis=-1) < reach[:, None] ** 2
        other, step = np.nonzero(close)
        if not len(other):
            return True
        return not rectangles_overlap(
            poses[step], np.broadcast_to(half_lw_m, (len(step), 2)), self._poses[other, step], self._half_lw_m[other]
        ).any()

    def take(self, poses: Array, half_lw_m: Array) -> None:
        """Take the ground of a rectangle; arguments as in ``is_free``."""
        self._poses = np.concatenate([self._poses, poses[None]])
        self._half_lw_m = np.concatenate([self._half_lw_m, half_lw_m[None]])


def rectangles_overlap(poses_a: Array, half_a: Array, poses_b: Array, half_b: Array) -> NDArray[np.bool_]:
    """Pairwise separating-axis test of (N, 3) poses with (N, 2) half length and half width."""
    gap = poses_b[:, :2] - poses_a[:, :2]
    turn = poses_b[:, 2] - poses_a[:, 2]
    cos, sin = np.abs(np.cos(turn)), np.abs(np.sin(turn))
    spread = np.stack([np.stack([cos, sin], -1), np.stack([sin, cos], -1)], -2)
    overlap = np.ones(len(gap), dtype=np.bool_)
    for yaw, own, other in ((poses_a[:, 2], half_a, half_b), (poses_b[:, 2], half_b, half_a)):
        axes_cos, axes_sin = np.cos(yaw), np.sin(yaw)
        along = np.abs(gap[:, 0] * axes_cos + gap[:, 1] * axes_sin)
        across = np.abs(gap[:, 1] * axes_cos - gap[:, 0] * axes_sin)
        reach = own + (spread @ other[..., None])[..., 0]
        overlap &= (along < reach[:, 0]) & (across < reach[:, 1])
    return overlap
