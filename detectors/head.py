"""BEVFormer's head: BEV queries through the encoder, object queries through the decoder, classes and boxes out."""

import copy
import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from detectors.box_code import refine
from detectors.config import BOX_CODE_LENGTH, BEVFormerConfig
from detectors.ego_motion import BevHistory
from detectors.heatmap_queries import CellPredictions, HeatmapQueries
from detectors.outputs import QueryOutputs, TemporalAttention
from detectors.query_start import FirstGuess, QueryStart
from detectors.spatial_cross_attention import CameraFeatures
from detectors.transformer import Transformer
from schemas.bev_grid import BevGrid

_CLASS_PRIOR = 0.01


class BevPositionEmbedding(nn.Module):
    """Learned rows and columns: the first half of the channels tells x (the column), the second y (the row)."""

    def __init__(self, grid: BevGrid, channels: int) -> None:
        super().__init__()
        self.row_embed = nn.Embedding(grid.rows, channels // 2)
        self.col_embed = nn.Embedding(grid.cols, channels // 2)

    def forward(self) -> Float[Tensor, "cell channel"]:
        """One embedding per cell, row-major."""
        rows, cols = self.row_embed.weight, self.col_embed.weight
        across = cols[None].expand(len(rows), -1, -1)
        along = rows[:, None].expand(-1, len(cols), -1)
        return torch.cat([across, along], dim=-1).flatten(0, 1)


class BEVFormerHead(nn.Module):
    """Queries, transformer and branches, under the published names."""

    def __init__(self, config: BEVFormerConfig) -> None:
        super().__init__()
        channels, layers = config.embed_dims, config.decoder.layers
        self.grid = config.grid
        self.starts_from_heatmap = config.head.heatmap_queries
        self.code_weights = nn.Parameter(torch.tensor(config.loss.code_weights), requires_grad=False)
        self.positional_encoding = BevPositionEmbedding(config.grid, channels)
        self.bev_embedding = nn.Embedding(config.grid.rows * config.grid.cols, channels)
        self.transformer = Transformer(config)
        self.cls_branches = copies(class_branch(channels, len(config.class_names)), layers)
        self.reg_branches = copies(box_branch(channels), layers)
        if config.head.heatmap_queries:
            self.heatmap_queries = HeatmapQueries(config)
            for branch in (*self.cls_branches, *self.reg_branches):
                _correct_nothing_at_first(branch)
        else:
            self.query_embedding = nn.Embedding(config.decoder.queries, 2 * channels)

    def encode(
        self, cameras: CameraFeatures, can_bus: Float64[Tensor, "batch 18"], history: BevHistory | None
    ) -> tuple[Float[Tensor, "batch cell channel"], TemporalAttention]:
        """The BEV of one frame; ``can_bus`` relative to the previous frame, ``history`` aligned to this one."""
        queries = self.bev_embedding.weight + self.transformer.ego_embedding(can_bus)
        cameras = self.transformer.embedded(cameras)
        bev: Tensor
        temporal: TemporalAttention
        bev, temporal = self.transformer.encoder(queries, self.positional_encoding(), cameras, history)
        return bev, temporal

    def detect(self, bev: Float[Tensor, "batch cell channel"]) -> tuple[QueryOutputs, CellPredictions | None]:
        """Objects of one frame after every decoder layer; and the cells' predictions, where queries start from them."""
        if not self.starts_from_heatmap:
            return self._decode(bev, self._learned_start(len(bev))), None
        start, cells = self.heatmap_queries(bev)
        return self._decode(bev, start), cells

    def _learned_start(self, batch: int) -> QueryStart:
        position, content = self.query_embedding.weight.expand(batch, -1, -1).chunk(2, dim=-1)
        with torch.autocast(position.device.type, enabled=False):
            reference = self.transformer.reference_points(position).sigmoid()
        return QueryStart(content, position, reference)

    def _decode(self, bev: Float[Tensor, "batch cell channel"], start: QueryStart) -> QueryOutputs:
        x, reference, guess = start.content, start.reference, start.guess
        features, positions, all_logits, all_boxes = [], [reference], [], []
        layers = zip(self.transformer.decoder.layers, self.cls_branches, self.reg_branches, strict=True)
        for layer, classify, regress in layers:
            x = layer(x, start.position, reference[..., :2], bev)
            # Boxes are metres within a hundred: half precision would round them to decimetres.
            with torch.autocast(x.device.type, enabled=False):
                logits, change = classify(x.float()), regress(x.float())
                if guess is not None:
                    logits, change = guess.corrected(logits, change)
                moved, boxes = refine(reference, change, self.grid)
            reference = moved.detach()
            if guess is not None:
                guess = FirstGuess(logits.detach(), boxes.detach())
            features.append(x)
            positions.append(reference)
            all_logits.append(logits)
            all_boxes.append(boxes)
        return QueryOutputs(*(torch.stack(part) for part in (features, positions, all_logits, all_boxes)))


def _correct_nothing_at_first(branch: nn.Module) -> None:
    """Zero a branch's last layer: its output is added to a first guess, which then stands until there is a reason."""
    last = list(branch.children())[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)


def class_branch(channels: int, classes: int) -> nn.Sequential:
    """Class logits of a query."""
    last = nn.Linear(channels, classes)
    nn.init.constant_(last.bias, -math.log((1 - _CLASS_PRIOR) / _CLASS_PRIOR))
    return nn.Sequential(
        nn.Linear(channels, channels),
        nn.LayerNorm(channels),
        nn.ReLU(inplace=True),
        nn.Linear(channels, channels),
        nn.LayerNorm(channels),
        nn.ReLU(inplace=True),
        last,
    )


def box_branch(channels: int) -> nn.Sequential:
    """The change of a query's box code."""
    return nn.Sequential(
        nn.Linear(channels, channels),
        nn.ReLU(inplace=True),
        nn.Linear(channels, channels),
        nn.ReLU(inplace=True),
        nn.Linear(channels, BOX_CODE_LENGTH),
    )


def copies(branch: nn.Sequential, count: int) -> nn.ModuleList:
    """Branches that start alike and are trained apart."""
    return nn.ModuleList([copy.deepcopy(branch) for _ in range(count)])
