"""Other frames' BEV maps laid under the current one: every cell of now looks up where its ground was then.

A map is drawn in the LiDAR frame of its own keyframe (``schemas/bev_grid.py``). The centre (x, y) of a current cell is
taken to an earlier frame by that frame's ``past_from_current`` and read there by bilinear interpolation, so what
stands still keeps its cell while the car moves. Only the ground moves with the car: objects that moved stay where they
were seen.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.nn import functional

from schemas.bev_grid import BevGrid


@dataclass(frozen=True, eq=False)
class AlignedBev:
    """A map over the ground of the current frame.

    Attributes:
        bev: features; where ``inside`` is False they are no datum.
        inside: cells whose ground the earlier map covered.
    """

    bev: Float[Tensor, "batch channel rows cols"]
    inside: Bool[Tensor, "batch rows cols"]


def past_from_current(
    previous_from_current: Float64[Tensor, "batch frame 4 4"],
) -> Float64[Tensor, "batch frame 4 4"]:
    """Where the last frame of a window lies in each of its frames: the steps between neighbours, multiplied up.

    Args:
        previous_from_current: for each frame, LiDAR points of the frame before it from points of its own.

    Returns:
        For each frame, its LiDAR points from points of the last frame; for the last one the identity.
    """
    return window_from_frame(previous_from_current, previous_from_current.shape[1] - 1)


def window_from_frame(
    previous_from_current: Float64[Tensor, "batch frame 4 4"], frame: int
) -> Float64[Tensor, "batch frame 4 4"]:
    """Where one frame of a window lies in each of its frames, earlier and later ones.

    Args:
        previous_from_current: for each frame, LiDAR points of the frame before it from points of its own.
        frame: which one, 0 the oldest.

    Returns:
        For each frame, its LiDAR points from points of that one; for that one the identity.
    """
    batch, frames = previous_from_current.shape[:2]
    itself = torch.eye(4, dtype=torch.float64, device=previous_from_current.device).expand(batch, 4, 4)
    places, chain = {frame: itself}, itself
    for earlier in range(frame - 1, -1, -1):
        chain = previous_from_current[:, earlier + 1] @ chain
        places[earlier] = chain
    chain = itself
    for later in range(frame + 1, frames):
        chain = _rigid_inverse(previous_from_current[:, later]) @ chain
        places[later] = chain
    return torch.stack([places[number] for number in range(frames)], dim=1)


def _rigid_inverse(a_from_b: Float64[Tensor, "batch 4 4"]) -> Float64[Tensor, "batch 4 4"]:
    inverse = torch.zeros_like(a_from_b)
    inverse[:, :3, :3] = a_from_b[:, :3, :3].transpose(1, 2)
    inverse[:, :3, 3:] = -inverse[:, :3, :3] @ a_from_b[:, :3, 3:]
    inverse[:, 3, 3] = 1
    return inverse


def align_bev(
    bev: Float[Tensor, "batch channel rows cols"],
    past_from_current: Float64[Tensor, "batch 4 4"],
    grid: BevGrid,
) -> AlignedBev:
    """An earlier map read at the places of the current cells.

    Points are taken on the LiDAR's own plane, z = 0: a pitch of one degree moves the ground below by 3 cm. Between the
    outermost centres and the edge of the map the outermost cell stands for its own half.

    Args:
        bev: the earlier map.
        past_from_current: LiDAR points of that frame from points of the current one.
        grid: cells of both maps.
    """
    x_min, y_min, _, x_max, y_max, _ = grid.extent_m
    like = past_from_current
    cols = torch.arange(grid.cols, dtype=like.dtype, device=like.device)
    rows = torch.arange(grid.rows, dtype=like.dtype, device=like.device)
    y_m, x_m = torch.meshgrid(
        y_min + (rows + 0.5) * grid.cell_m[1], x_min + (cols + 0.5) * grid.cell_m[0], indexing="ij"
    )
    centers = torch.stack([x_m, y_m, torch.zeros_like(x_m), torch.ones_like(x_m)], dim=-1)
    there = torch.einsum("bij,rcj->brci", past_from_current[:, :2], centers)
    lower, upper = like.new_tensor([x_min, y_min]), like.new_tensor([x_max, y_max])
    # grid_sample wants (x, y), that is (col, row), with -1 and 1 at the map's outer edges.
    places = 2 * (there - lower) / (upper - lower) - 1
    read = functional.grid_sample(
        bev, places.to(bev.dtype), mode="bilinear", padding_mode="border", align_corners=False
    )
    return AlignedBev(read, (places.abs() <= 1).all(dim=-1))
