"""Hedges, walls, containers and houses: they are not annotated, but things hide behind them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.occupancy import Occupancy
from scenes.synthetic.town import Road, Town

Array = NDArray[np.float64]

BlockKind = Literal["hedge", "wall", "container", "house"]

_NEAR_DRIVE_M = 55.0


@dataclass(frozen=True, eq=False)
class Block:
    """A box of scenery that stands on the ground.

    Attributes:
        kind: what it looks like.
        pose: (3,) x, y, yaw, global frame.
        size_lwh_m: (3,) along its yaw, across it, up.
        look: seed of its colours.
    """

    kind: BlockKind
    pose: Array
    size_lwh_m: Array
    look: int


@dataclass(frozen=True)
class _Strip:
    """A line of blocks beside a road, with gaps.

    Attributes:
        kinds: what is built on it.
        offset_m: from the edge of the road to the middle of the blocks.
        length_m, thickness_m, height_m, gap_m: ranges.
    """

    kinds: tuple[BlockKind, ...]
    offset_m: float
    length_m: tuple[float, float]
    thickness_m: tuple[float, float]
    height_m: tuple[float, float]
    gap_m: tuple[float, float]


_STRIPS = (
    _Strip(("hedge", "wall"), 0.6, (3.0, 8.0), (0.4, 0.6), (1.6, 2.6), (8.0, 22.0)),
    _Strip(("hedge", "wall"), 4.7, (3.0, 8.0), (0.5, 0.8), (1.6, 2.6), (8.0, 22.0)),
    _Strip(("container",), 14.5, (5.0, 9.0), (2.4, 2.6), (2.5, 2.9), (9.0, 40.0)),
    _Strip(("house",), 24.0, (9.0, 18.0), (9.0, 12.0), (5.0, 15.0), (1.5, 8.0)),
)


def plan_blocks(rng: np.random.Generator, town: Town, occupancy: Occupancy, ego_poses: Array) -> tuple[Block, ...]:
    """Build along every road near the drive, whose poses are (T, 3), and take the ground built on."""
    blocks: list[Block] = []
    for road in town.roads:
        for strip in _STRIPS:
            for side in (-1, 1):
                blocks += _build(rng, road, strip, side)
    built = []
    for block in blocks:
        near = np.linalg.norm(ego_poses[:, :2] - block.pose[:2], axis=1).min() < _NEAR_DRIVE_M
        half_lw = block.size_lwh_m[:2] / 2
        poses = np.broadcast_to(block.pose, ego_poses.shape)
        if near and not _on_a_road(town, block) and occupancy.is_free(poses, half_lw):
            occupancy.take(poses, half_lw)
            built.append(block)
    return tuple(built)


def _build(rng: np.random.Generator, road: Road, strip: _Strip, side: int) -> list[Block]:
    blocks = []
    arc = road.curve.arc_m[0] + rng.uniform(*strip.gap_m)
    while arc < road.curve.arc_m[-1]:
        length = rng.uniform(*strip.length_m)
        left = side * (road.half_width_m + strip.offset_m)
        size = np.array([length, rng.uniform(*strip.thickness_m), rng.uniform(*strip.height_m)])
        kind = strip.kinds[int(rng.integers(len(strip.kinds)))]
        pose = road.curve.pose(np.array([arc + length / 2]), left)[0]
        blocks.append(Block(kind, pose, size, int(rng.integers(2**31))))
        arc += length + rng.uniform(*strip.gap_m)
    return blocks


def _on_a_road(town: Town, block: Block) -> bool:
    length, width = block.size_lwh_m[:2]
    cos, sin = np.cos(block.pose[2]), np.sin(block.pose[2])
    along = np.linspace(-0.5, 0.5, 3)[:, None, None] * length * np.array([cos, sin])
    across = np.array([-0.5, 0.5])[:, None] * width * np.array([-sin, cos])
    points = block.pose[:2] + (along + across).reshape(-1, 2)
    return any(road.contains(point, 0.05) for road in town.roads for point in points)
