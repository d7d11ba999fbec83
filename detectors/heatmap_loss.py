"""How the heatmap and the cells' boxes are taught: by place alone, without matching."""

from collections.abc import Sequence

import torch
from jaxtyping import Float32, Int64
from torch import Tensor
from torch.nn import functional

from detectors.box_code import LOG_SIZE
from detectors.config import BEVFormerConfig
from detectors.detection_loss import CodeWeights, mean_over_ranks
from detectors.heatmap_queries import CellPredictions
from detectors.targets import BoxTargets
from schemas.bev_grid import BevGrid


def heatmap_losses(
    cells: CellPredictions, targets: Sequence[BoxTargets], code_weights: CodeWeights, config: BEVFormerConfig
) -> dict[str, Tensor]:
    """``loss_heatmap`` over all cells and ``loss_cell_bbox`` at the objects' cells, weighted, per annotated object."""
    code_weights = code_weights.expand(len(targets), -1)
    count = mean_over_ranks(cells.heatmap.new_tensor(float(sum(len(target.labels) for target in targets))))
    focal, distance = cells.heatmap.new_zeros(()), cells.heatmap.new_zeros(())
    for sample, target in enumerate(targets):
        goal = target_heatmap(target, cells.heatmap[sample], config.grid, config.head.heatmap_min_radius_cells)
        focal = focal + _penalty_reduced_focal(cells.heatmap[sample], goal).sum()
        row, col = centre_cells(target.codes, config.grid).unbind(-1)
        errors = (cells.boxes[sample, row, col] - target.codes).abs()
        distance = distance + (errors * code_weights[sample]).sum()
    normaliser = count.clamp(min=1)
    return {
        "loss_heatmap": config.loss.heatmap_weight * focal / normaliser,
        "loss_cell_bbox": config.loss.box_weight * distance / normaliser,
    }


def centre_cells(codes: Float32[Tensor, "object 10"], grid: BevGrid) -> Int64[Tensor, "object 2"]:
    """Row and column of the cell that holds each centre, which is inside the map."""
    low, cell = (codes.new_tensor(numbers) for numbers in (grid.extent_m[:2], grid.cell_m))
    col, row = ((codes[:, :2] - low) / cell).long().unbind(-1)
    return torch.stack([row.clamp(max=grid.rows - 1), col.clamp(max=grid.cols - 1)], dim=-1)


def target_heatmap(
    target: BoxTargets, like: Float32[Tensor, "class row col"], grid: BevGrid, min_radius_cells: int
) -> Float32[Tensor, "class row col"]:
    """One at every object's centre cell, falling off around it as a Gaussian; the largest wins."""
    gaussians = object_gaussians(target.codes, grid, min_radius_cells)
    index = target.labels[:, None, None].expand_as(gaussians)
    return torch.zeros_like(like).scatter_reduce(0, index, gaussians, reduce="amax")


def object_gaussians(
    codes: Float32[Tensor, "object 10"], grid: BevGrid, min_radius_cells: int
) -> Float32[Tensor, "object row col"]:
    """Every object's Gaussian on a map of its own, one at the cell of its centre, which must be inside the map.

    The radius, 3σ less half a cell, is half the object's shorter side, and no less than ``min_radius_cells``.
    """
    shorter = codes[:, LOG_SIZE[:2]].exp().amin(dim=-1) / min(grid.cell_m)
    sigma = (2 * (shorter / 2).clamp(min=min_radius_cells) + 1) / 6
    row, col = centre_cells(codes, grid).unbind(-1)
    down = torch.arange(grid.rows, device=codes.device) - row[:, None]
    across = torch.arange(grid.cols, device=codes.device) - col[:, None]
    # A Gaussian is the product of its profiles: a few exponentials instead of one per cell.
    profiles = [torch.exp(-(away**2) / (2 * sigma[:, None] ** 2)) for away in (down, across)]
    return profiles[0][:, :, None] * profiles[1][:, None, :]


def _penalty_reduced_focal(
    logits: Float32[Tensor, "class row col"], goal: Float32[Tensor, "class row col"]
) -> Float32[Tensor, "class row col"]:
    """Law and Deng, "CornerNet" (2018), equation 1, with α = 2 and β = 4, per cell."""
    p = logits.sigmoid()
    at_centre = (1 - p) ** 2 * functional.softplus(-logits)
    elsewhere = (1 - goal) ** 4 * p**2 * functional.softplus(logits)
    return torch.where(goal == 1, at_centre, elsewhere)
