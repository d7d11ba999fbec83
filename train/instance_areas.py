"""Where a set of queries sees objects: soft areas over the BEV, one Gaussian per box, turned as the box is.

    K(p) = max over instance of  s · exp( −½ · [ (along / σ_l)² + (across / σ_w)² ] ),     σ = size / 4

``along`` and ``across`` are the distances of cell p from the box's centre in the box's own axes, so its sides lie at
two σ. Source: FD3D (Zeng et al., CVPR 2023) generates features within areas that queries locate; their shape could not
be read and is ours.
"""

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from detectors.box_code import CENTER
from detectors.reference_points import cell_centers
from schemas.bev_grid import BevGrid

SIGMAS_PER_SIZE = 4
"""A box is as long as four standard deviations."""


@torch.no_grad()
def best_queries(
    logits: Float[Tensor, "batch query class"], count: int, min_score: float
) -> tuple[Int64[Tensor, "batch instance"], Float[Tensor, "batch instance"]]:
    """The queries surest of an object, best first, and how sure: 0 for those not above ``min_score``."""
    scores, index = logits.sigmoid().amax(-1).topk(min(count, logits.shape[1]))
    return index, torch.where(scores > min_score, scores, 0)


@torch.no_grad()
def instance_area(
    codes: Float32[Tensor, "instance 10"], scores: Float32[Tensor, " instance"], grid: BevGrid, min_sigma_cells: float
) -> Float32[Tensor, "rows cols"]:
    """K of one frame.

    Args:
        codes: boxes (``detectors/box_code.py``).
        scores: height of each Gaussian.
        grid: the map.
        min_sigma_cells: smallest standard deviation, in cells, so that no object falls between cell centres.
    """
    if len(codes) == 0:
        return codes.new_zeros(grid.shape)
    low, size = (codes.new_tensor(numbers) for numbers in (grid.extent_m[:2], grid.size_m[:2]))
    offsets = cell_centers(grid, codes.device) * size + low - codes[:, None, CENTER[:2]]
    yaw = torch.atan2(codes[:, 6], codes[:, 7])[:, None]  # a sine and cosine of zero, which say nothing, give yaw 0
    sin, cos = yaw.sin(), yaw.cos()
    # The convention's heading is (−sin yaw, −cos yaw); a Gaussian does not tell front from rear.
    along, across = offsets[..., 0] * sin + offsets[..., 1] * cos, offsets[..., 0] * cos - offsets[..., 1] * sin
    least = min_sigma_cells * max(grid.cell_m)
    width, length = (codes[:, 2:4].exp() / SIGMAS_PER_SIZE).clamp(min=least).T[..., None]
    heights: Tensor = scores[:, None] * (-0.5 * ((along / length) ** 2 + (across / width) ** 2)).exp()
    return heights.amax(0).reshape(grid.shape)
