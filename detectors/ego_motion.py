"""How the car moved since the previous frame, and the previous BEV brought to where the car is now.

BEVFormer section 3.3 (temporal self-attention), with the published code's conventions: position differences stay in
global axes, the yaw difference is not wrapped to (-180, 180] (the network's CAN-bus input sees it), and a frame without
history has zero differences.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Float64
from torch import Tensor
from torch.nn import functional

from detectors.inputs import CameraBatch
from detectors.outputs import TemporalState
from detectors.reference_points import cell_centers
from schemas.bev_grid import BevGrid

POSITION = slice(0, 3)
YAW_RAD = 16
YAW_DEG = 17


@dataclass(frozen=True, eq=False)
class BevHistory:
    """The previous BEV as the encoder reads it.

    Attributes:
        bev: rotated into the present heading; cells that were outside the map are zero.
        shift: how far the present map's centre has moved right and forward, as a fraction of the map.
        present: which samples have a history at all; the others' values are not used.
        unturned: the previous BEV as it was remembered.
        turned_deg: the car's turn since then, positive to the left.
    """

    bev: Float[Tensor, "batch cell channel"]
    shift: Float32[Tensor, "batch 2"]
    present: Bool[Tensor, " batch"]
    unturned: Float[Tensor, "batch cell channel"]
    turned_deg: Float64[Tensor, " batch"]


def continues(scene_tokens: tuple[str, ...], previous: TemporalState | None) -> tuple[bool, ...]:
    """Which samples go on in the scene of their previous state."""
    if previous is None:
        return (False,) * len(scene_tokens)
    return tuple(now == then for now, then in zip(scene_tokens, previous.scene_tokens, strict=True))


def relative_can_bus(batch: CameraBatch, previous: TemporalState | None) -> Float64[Tensor, "batch 18"]:
    """The CAN-bus vector as the network takes it: position and yaw in degrees relative to the previous frame.

    Differences are taken in float64, since global positions are kilometres. All else stays absolute.
    """
    relative = batch.can_bus.clone()
    if previous is None:
        relative[:, POSITION] = 0
        relative[:, YAW_DEG] = 0
        return relative
    present = torch.tensor(continues(batch.scene_tokens, previous), device=relative.device)
    moved_m = relative[:, POSITION] - previous.position_m
    turned_deg = relative[:, YAW_DEG] - previous.yaw_deg
    relative[:, POSITION] = torch.where(present[:, None], moved_m, 0)
    relative[:, YAW_DEG] = torch.where(present, turned_deg, 0)
    return relative


def map_shift(can_bus: Float64[Tensor, "batch 18"], grid: BevGrid) -> Float32[Tensor, "batch 2"]:
    """Displacement (right, forward) since the previous frame as a fraction of the map, by the present heading.

    Args:
        can_bus: relative, see ``relative_can_bus``.
        grid: the BEV map.
    """
    east, north, yaw_rad = can_bus[:, 0], can_bus[:, 1], can_bus[:, YAW_RAD]
    right = east * yaw_rad.sin() - north * yaw_rad.cos()
    forward = east * yaw_rad.cos() + north * yaw_rad.sin()
    size_x, size_y, _ = grid.size_m
    return torch.stack([right / size_x, forward / size_y], dim=-1).float()


def rotate_bev(
    bev: Float[Tensor, "batch cell channel"],
    turned_deg: Float64[Tensor, " batch"],
    grid: BevGrid,
    center: tuple[float, float] | None,
) -> Float[Tensor, "batch cell channel"]:
    """Turn a map by the car's own turn: nearest cell, zero where that lies outside. The input is left alone.

    Args:
        bev: flattened map.
        turned_deg: positive when the car turned left.
        grid: the BEV map.
        center: (col, row) in cells that stays in place; None is the map's centre.
    """
    center_col, center_row = center or (grid.cols / 2, grid.rows / 2)
    right = torch.arange(grid.cols, device=bev.device, dtype=torch.float64) + 0.5 - center_col
    forward = torch.arange(grid.rows, device=bev.device, dtype=torch.float64)[:, None] + 0.5 - center_row
    cos, sin = (function(torch.deg2rad(turned_deg))[:, None, None] for function in (torch.cos, torch.sin))
    cols = (center_col + cos * right - sin * forward - 0.5).round().long().flatten(1)
    rows = (center_row + sin * right + cos * forward - 0.5).round().long().flatten(1)
    inside = (cols >= 0) & (cols < grid.cols) & (rows >= 0) & (rows < grid.rows)
    source = torch.where(inside, rows * grid.cols + cols, 0)
    turned = bev.gather(1, source[..., None].expand_as(bev))
    return turned * inside[..., None]


def aligned_history(
    batch: CameraBatch, previous: TemporalState | None, grid: BevGrid, center: tuple[float, float] | None
) -> BevHistory | None:
    """The history of a batch, or None when no sample has one."""
    present = continues(batch.scene_tokens, previous)
    if previous is None or not any(present):
        return None
    can_bus = relative_can_bus(batch, previous)
    turned_deg = can_bus[:, YAW_DEG]
    return BevHistory(
        bev=rotate_bev(previous.bev, turned_deg, grid, center),
        shift=map_shift(can_bus, grid),
        present=torch.tensor(present, device=previous.bev.device),
        unturned=previous.bev,
        turned_deg=turned_deg,
    )


def read_beneath(history: BevHistory, grid: BevGrid) -> Float[Tensor, "batch channel row col"]:
    """The previous BEV at the ground of every present cell, between cells by interpolation.

    ``rotate_bev`` rounds to whole cells, which moves things by up to half a cell whenever the car turns: a metre and a
    half per second of velocity, at two frames a second. Zero where that ground was outside the map, and for samples
    without history.
    """
    size_m = history.shift.new_tensor(grid.size_m[:2])
    right, forward = ((cell_centers(grid, size_m.device) - 0.5 + history.shift[:, None]) * size_m).unbind(-1)
    cos, sin = (function(torch.deg2rad(history.turned_deg)).float()[:, None] for function in (torch.cos, torch.sin))
    places_m = torch.stack([cos * right - sin * forward, sin * right + cos * forward], dim=-1)
    maps = history.unturned.float().transpose(1, 2).reshape(len(places_m), -1, *grid.shape)
    places = (2 * places_m / size_m).reshape(len(places_m), *grid.shape, 2)
    read = functional.grid_sample(maps, places, mode="bilinear", padding_mode="zeros", align_corners=False)
    return read * history.present[:, None, None, None]


def state_after(batch: CameraBatch, bev: Float[Tensor, "batch cell channel"]) -> TemporalState:
    """What the next frame needs of this one."""
    return TemporalState(
        bev=bev.detach(),
        position_m=batch.can_bus[:, POSITION].clone(),
        yaw_deg=batch.can_bus[:, YAW_DEG].clone(),
        scene_tokens=batch.scene_tokens,
    )
