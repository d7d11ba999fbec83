"""Object queries that start where a heatmap says objects are: the demo's head, which learns in minutes.

A convolutional head over the BEV predicts, for every cell, the chance that an object of each class has its centre
there, and that object's box (CenterPoint, Yin et al. 2021). The highest peaks become the decoder's queries: reference
points and first boxes from the cell, content from the BEV feature and the class (as in TransFusion, Bai et al. 2022).
So supervision by place teaches the BEV from the first step, and the decoder only has to correct and to sort out.

Yaw and velocity are predicted relative to the ray from the sensor to the cell, which is what an image shows; codes
leave this file in LiDAR axes.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn
from torch.nn import functional

from detectors.box_code import from_ray_frame
from detectors.config import BOX_CODE_LENGTH, BEVFormerConfig
from detectors.query_start import FirstGuess, QueryStart
from detectors.reference_points import cell_centers
from schemas.bev_grid import BevGrid

_PRIOR_LOGIT = -2.19
"""A chance of a tenth, as in CornerNet and its descendants; an untrained heatmap is then no shock to the loss."""

_OTHER_CLASS_LOGIT = -4.595
"""What a query starts with for every class but its peak's: a chance of a hundredth."""

_NORM_GROUPS = 8


@dataclass(frozen=True, eq=False)
class CellPredictions:
    """What the BEV says of every cell by itself.

    Attributes:
        heatmap: class logits.
        boxes: box codes in LiDAR axes, of the object whose centre is in the cell, if there is one.
    """

    heatmap: Float32[Tensor, "batch class row col"]
    boxes: Float32[Tensor, "batch row col 10"]


class HeatmapQueries(nn.Module):
    """Heatmap and cell boxes over the BEV, and the queries at the peaks."""

    def __init__(self, config: BEVFormerConfig) -> None:
        super().__init__()
        channels, classes = config.embed_dims, len(config.class_names)
        self.grid, self.queries = config.grid, config.decoder.queries
        self.shared = _conv_block(channels)
        self.heatmap = _tower(channels, classes, bias=_PRIOR_LOGIT)
        self.boxes = _tower(channels, BOX_CODE_LENGTH, bias=0.0)
        self.content = nn.Linear(channels, channels)
        self.class_embedding = nn.Embedding(classes, channels)
        self.position = nn.Sequential(nn.Linear(3, channels), nn.ReLU(inplace=True), nn.Linear(channels, channels))

    def predict(self, bev: Float[Tensor, "batch cell channel"]) -> tuple[CellPredictions, Tensor]:
        """Heatmap and boxes, and the features they were read from: (batch, channel, row, col)."""
        maps = bev.transpose(1, 2).reshape(len(bev), -1, *self.grid.shape)
        shared = self.shared(maps)
        heatmap, change = self.heatmap(shared).float(), self.boxes(shared).float()
        return CellPredictions(heatmap, cell_boxes(change, self.grid)), shared

    def forward(self, bev: Float[Tensor, "batch cell channel"]) -> tuple[QueryStart, CellPredictions]:
        """Queries at the highest peaks, best first, and what they were read from.

        No gradient flows through the places and first guesses, which the cells' own losses teach.
        """
        cells, shared = self.predict(bev)
        label, cell, score = highest_peaks(cells.heatmap, self.queries)
        content = self.content(_at(shared.flatten(2).transpose(1, 2), cell)) + self.class_embedding(label)
        boxes = _at(cells.boxes.flatten(1, 2), cell).detach()
        low, size = (boxes.new_tensor(numbers) for numbers in (self.grid.extent_m[:3], self.grid.size_m))
        reference = ((boxes[..., (0, 1, 4)] - low) / size).clamp(0, 1)
        logits = torch.full((*label.shape, cells.heatmap.shape[1]), _OTHER_CLASS_LOGIT, device=label.device)
        logits = logits.scatter(-1, label[..., None], score[..., None]).detach()
        return QueryStart(content, self.position(reference), reference, FirstGuess(logits, boxes)), cells


def cell_boxes(change: Float32[Tensor, "batch 10 row col"], grid: BevGrid) -> Float32[Tensor, "batch row col 10"]:
    """Box codes from a map's raw outputs: centres relative to the cell in cells, yaw and velocity to its ray."""
    low, size = (change.new_tensor(numbers) for numbers in (grid.extent_m[:2], grid.size_m[:2]))
    center_m = cell_centers(grid, change.device) * size + low
    code = from_ray_frame(change.flatten(2).transpose(1, 2), center_m)
    placed = center_m + code[..., :2] * code.new_tensor(grid.cell_m)
    return torch.cat([placed, code[..., 2:]], dim=-1).reshape(len(change), *grid.shape, BOX_CODE_LENGTH)


@torch.no_grad()
def highest_peaks(
    heatmap: Float32[Tensor, "batch class row col"], count: int
) -> tuple[Int64[Tensor, "batch query"], Int64[Tensor, "batch query"], Float32[Tensor, "batch query"]]:
    """Class, flattened cell and logit of the highest local maxima (3×3), best first.

    Where there are fewer maxima than asked for, the rest are the highest cells beside them.
    """
    is_peak = heatmap == functional.max_pool2d(heatmap, 3, stride=1, padding=1)
    ranked = torch.where(is_peak, heatmap.sigmoid() + 1, heatmap.sigmoid()).flatten(1)
    chosen = ranked.topk(min(count, ranked.shape[1])).indices
    cells = heatmap.shape[2] * heatmap.shape[3]
    return chosen // cells, chosen % cells, heatmap.flatten(1).gather(1, chosen)


def _at(values: Float[Tensor, "batch cell number"], cell: Int64[Tensor, "batch query"]) -> Tensor:
    return values.gather(1, cell[..., None].expand(-1, -1, values.shape[-1]))


def _conv_block(channels: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(_NORM_GROUPS, channels), nn.ReLU(inplace=True))


def _tower(channels: int, outputs: int, bias: float) -> nn.Sequential:
    last = nn.Conv2d(channels, outputs, 1)
    assert last.bias is not None
    nn.init.constant_(last.bias, bias)
    return nn.Sequential(_conv_block(channels), last)
