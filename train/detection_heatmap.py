"""A teacher's detections drawn as class heatmaps, for students that predict no boxes to compare with.

Every detection is a Gaussian of its score's height on its class's map; where several meet, the highest counts. Its
shape is the one that detectors draw annotations with in a heatmap of their own (``detectors/heatmap_loss.py``), so that
a student's heatmap is told one shape by annotations and teacher.
"""

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from detectors.box_code import CENTER
from detectors.heatmap_loss import object_gaussians
from schemas.bev_grid import BevGrid

MAX_DETECTIONS = 300
"""As published for BEVFormer: the best (query, class) pairs of a frame are its detections."""


@torch.no_grad()
def detection_heatmap(
    logits: Float[Tensor, "batch query class"],
    codes: Float32[Tensor, "batch query 10"],
    grid: BevGrid,
    temperature: float,
    min_radius_cells: int,
) -> Float32[Tensor, "batch class rows cols"]:
    """Detections as officially decoded, the best pairs of query and class, without non-maximum suppression.

    Nothing leaves the device. The official range filter keeps more ground than the map covers and so changes nothing.

    Args:
        logits: of the teacher's last decoder layer.
        codes: boxes of the same (``detectors/box_code.py``).
        grid: of the maps; detections whose centres lie outside are not drawn.
        temperature: divides the logits before they become scores; which pairs are best does not depend on it.
        min_radius_cells: of the smallest Gaussian.
    """
    heatmap = logits.new_zeros((len(logits), logits.shape[-1], *grid.shape), dtype=torch.float32)
    chances = (logits.float() / temperature).sigmoid().flatten(1)
    scores, pairs = chances.topk(min(MAX_DETECTIONS, chances.shape[1]))
    lower, upper = (codes.new_tensor(corner) for corner in (grid.extent_m[:2], grid.extent_m[3:5]))
    for sample, (score, pair) in enumerate(zip(scores, pairs, strict=True)):
        own = codes[sample, pair // logits.shape[-1]]
        center = own[:, CENTER[:2]]
        score = score * ((center >= lower) & (center < upper)).all(dim=-1)  # noqa: PLW2901
        drawn = score[:, None, None] * object_gaussians(own, grid, min_radius_cells)
        label = (pair % logits.shape[-1])[:, None, None].expand_as(drawn)
        heatmap[sample].scatter_reduce_(0, label, drawn, reduce="amax")
    return heatmap
