"""The parts of BEVFormer's head that its published checkpoints keep under ``transformer``."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from detectors.config import LEVEL_EMBEDDING_ROWS, BEVFormerConfig
from detectors.decoder import Decoder
from detectors.encoder import Encoder
from detectors.spatial_cross_attention import CameraFeatures
from schemas.frames import CAMERAS, CAN_BUS_LENGTH


class Transformer(nn.Module):
    """Encoder and decoder with their embeddings of level, camera and ego motion."""

    def __init__(self, config: BEVFormerConfig) -> None:
        super().__init__()
        channels = config.embed_dims
        self.level_embeds = nn.Parameter(torch.randn(LEVEL_EMBEDDING_ROWS, channels))
        self.cams_embeds = nn.Parameter(torch.randn(len(CAMERAS), channels))
        self.can_bus_mlp = _can_bus_mlp(channels)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        if not config.head.heatmap_queries:
            self.reference_points = nn.Linear(channels, 3)
            nn.init.xavier_uniform_(self.reference_points.weight)
            nn.init.zeros_(self.reference_points.bias)

    def embedded(self, cameras: CameraFeatures) -> CameraFeatures:
        """Image features that know their camera and pyramid level."""
        maps = tuple(
            level_map + (self.cams_embeds + self.level_embeds[level])[:, :, None, None]
            for level, level_map in enumerate(cameras.maps)
        )
        return CameraFeatures(maps, cameras.image_from_lidar, cameras.image_hw)

    def ego_embedding(self, can_bus: Float[Tensor, "batch 18"]) -> Float[Tensor, "batch 1 channel"]:
        """What every BEV query is told of the car's motion; ``can_bus`` as by ``relative_can_bus``."""
        embedding: Tensor = self.can_bus_mlp(can_bus.float())
        return embedding[:, None]


def _can_bus_mlp(channels: int) -> nn.Sequential:
    first, second = nn.Linear(CAN_BUS_LENGTH, channels // 2), nn.Linear(channels // 2, channels)
    nn.init.xavier_uniform_(first.weight)
    nn.init.xavier_uniform_(second.weight)
    mlp = nn.Sequential(first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True))
    mlp.add_module("norm", nn.LayerNorm(channels))
    return mlp
