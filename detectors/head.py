"""BEVFormer's head: BEV queries through the encoder, object queries through the decoder, classes and boxes out."""

import copy
import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from detectors.box_code import refine
from detectors.config import BOX_CODE_LENGTH, BEVFormerConfig
from detectors.ego_motion import BevHistory
from detectors.outputs import QueryOutputs, TemporalAttention
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
        self.code_weights = nn.Parameter(torch.tensor(config.loss.code_weights), requires_grad=False)
        self.positional_encoding = BevPositionEmbedding(config.grid, channels)
        self.bev_embedding = nn.Embedding(config.grid.rows * config.grid.cols, channels)
        self.query_embedding = nn.Embedding(config.decoder.queries, 2 * channels)
        self.transformer = Transformer(config)
        self.cls_branches = _copies(_class_branch(channels, len(config.class_names)), layers)
        self.reg_branches = _copies(_box_branch(channels), layers)

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

    def detect(self, bev: Float[Tensor, "batch cell channel"]) -> QueryOutputs:
        """Objects of one frame, after every decoder layer."""
        position, content = self.query_embedding.weight.expand(len(bev), -1, -1).chunk(2, dim=-1)
        reference = self.transformer.reference_points(position).float().sigmoid()
        features, positions, logits, boxes = [], [reference], [], []
        layers = zip(self.transformer.decoder.layers, self.cls_branches, self.reg_branches, strict=True)
        x = content
        for layer, classify, regress in layers:
            x = layer(x, position, reference[..., :2], bev)
            # Boxes are metres within a hundred: half precision would round them to decimetres.
            with torch.autocast(x.device.type, enabled=False):
                moved, box = refine(reference, regress(x.float()), self.grid)
                logits.append(classify(x.float()))
            reference = moved.detach()
            features.append(x)
            positions.append(reference)
            boxes.append(box)
        return QueryOutputs(torch.stack(features), torch.stack(positions), torch.stack(logits), torch.stack(boxes))


def _class_branch(channels: int, classes: int) -> nn.Sequential:
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


def _box_branch(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(channels, channels),
        nn.ReLU(inplace=True),
        nn.Linear(channels, channels),
        nn.ReLU(inplace=True),
        nn.Linear(channels, BOX_CODE_LENGTH),
    )


def _copies(branch: nn.Sequential, count: int) -> nn.ModuleList:
    """Branches that start alike and are trained apart."""
    return nn.ModuleList([copy.deepcopy(branch) for _ in range(count)])
