"""BEVFormer's encoder: image features and the previous BEV in, the current BEV out (Li et al. 2022, section 3)."""

from jaxtyping import Float
from torch import Tensor, nn

from detectors.config import BEVFormerConfig
from detectors.ego_motion import BevHistory
from detectors.feed_forward import FeedForward
from detectors.history_fusion import HistoryFusion
from detectors.outputs import TemporalAttention
from detectors.spatial_cross_attention import CameraFeatures, SpatialCrossAttention, VisibleCells, visible_cells
from detectors.temporal_self_attention import TemporalContext, TemporalSelfAttention, temporal_context


class EncoderLayer(nn.Module):
    """Temporal self-attention, spatial cross-attention, feed-forward network; each followed by its norm."""

    def __init__(self, config: BEVFormerConfig) -> None:
        super().__init__()
        encoder = config.encoder
        self.attentions = nn.ModuleList([TemporalSelfAttention(config), SpatialCrossAttention(config)])
        self.ffns = nn.ModuleList([FeedForward(config.embed_dims, encoder.ffn_channels, encoder.dropout)])
        self.norms = nn.ModuleList([nn.LayerNorm(config.embed_dims) for _ in range(3)])

    def forward(
        self,
        x: Float[Tensor, "batch cell channel"],
        position: Float[Tensor, "cell channel"],
        context: TemporalContext,
        maps: tuple[Float[Tensor, "batch camera channel _ _"], ...],
        visible: VisibleCells,
    ) -> tuple[Float[Tensor, "batch cell channel"], TemporalAttention]:
        """The refined BEV, and where the temporal attention looked."""
        x, temporal = self.attentions[0](x, position, context)
        x = self.norms[0](x)
        x = self.norms[1](self.attentions[1](x, maps, visible))
        return self.norms[2](self.ffns[0](x)), temporal


class Encoder(nn.Module):
    """A stack of layers over one frame's cameras and history."""

    def __init__(self, config: BEVFormerConfig) -> None:
        super().__init__()
        self.config = config.encoder
        self.grid = config.grid
        self.layers = nn.ModuleList([EncoderLayer(config) for _ in range(config.encoder.layers)])
        self.history_fusion = HistoryFusion(config) if config.encoder.history_fusion else None

    def forward(
        self,
        bev_queries: Float[Tensor, "batch cell channel"],
        position: Float[Tensor, "cell channel"],
        cameras: CameraFeatures,
        history: BevHistory | None,
    ) -> tuple[Float[Tensor, "batch cell channel"], TemporalAttention]:
        """BEV features, and the last layer's temporal attention.

        Args:
            bev_queries: learned cell queries with the ego motion added.
            position: BEV position embedding.
            cameras: image features, embeddings added.
            history: the aligned previous BEV; None when no sample has one.
        """
        visible = visible_cells(cameras, self.grid, self.config.heights)
        context = temporal_context(bev_queries, history, self.grid, self.config.shift_both_references)
        x = bev_queries
        for layer in self.layers:
            x, temporal = layer(x, position, context, cameras.maps, visible)
        if self.history_fusion is not None:
            x = self.history_fusion(x, history)
        return x, temporal
