"""Where BEV cells are: on the map, in the pillar above them, and in the cameras."""

import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from schemas.bev_grid import BevGrid

_MIN_DEPTH_M = 1e-5


def cell_centers(grid: BevGrid, device: torch.device) -> Float32[Tensor, "cell 2"]:
    """(x, y) of every cell's centre in [0, 1] of the map, row-major as drawn in ``schemas/bev_grid.py``."""
    x = (torch.arange(grid.cols, device=device) + 0.5) / grid.cols
    y = (torch.arange(grid.rows, device=device) + 0.5) / grid.rows
    rows, cols = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([cols, rows], dim=-1).flatten(0, 1)


def pillar_points_m(grid: BevGrid, heights: int, device: torch.device) -> Float32[Tensor, "cell height 3"]:
    """3D reference points above every cell: metres in the LiDAR frame.

    Heights run evenly from half a metre above the bottom of the extent to half a metre below its top.
    """
    x_min, y_min, z_min, x_max, y_max, z_max = grid.extent_m
    centers = cell_centers(grid, device)
    x = centers[:, 0] * (x_max - x_min) + x_min
    y = centers[:, 1] * (y_max - y_min) + y_min
    z = torch.linspace(0.5, z_max - z_min - 0.5, heights, device=device) + z_min
    points = torch.stack([x, y], dim=-1)[:, None, :].expand(-1, heights, -1)
    return torch.cat([points, z[None, :, None].expand(len(points), -1, -1)], dim=-1)


def project_to_cameras(
    points_m: Float32[Tensor, "cell height 3"],
    image_from_lidar: Float32[Tensor, "batch camera 4 4"],
    image_hw: tuple[int, int],
) -> tuple[Float32[Tensor, "batch camera cell height 2"], Bool[Tensor, "batch camera cell height"]]:
    """Project points into every camera, in float32 whatever the surrounding precision.

    Written as products and sums, not as a matrix product, which autocast or TF32 would round.

    Returns:
        (x, y) normalised by the padded image size, far outside [0, 1] for points behind the camera; and whether a
        point is in front of the camera and strictly inside the image.
    """
    matrix = image_from_lidar[:, :, None, None]
    x, y, z = points_m[..., None].unbind(-2)
    projected = matrix[..., :3, 0] * x + matrix[..., :3, 1] * y + matrix[..., :3, 2] * z + matrix[..., :3, 3]
    depth = projected[..., 2]
    height, width = image_hw
    size = projected.new_tensor([width, height])
    locations = projected[..., :2] / depth.clamp(min=_MIN_DEPTH_M)[..., None] / size
    inside = ((locations > 0) & (locations < 1)).all(-1)
    return locations, (depth > _MIN_DEPTH_M) & inside
