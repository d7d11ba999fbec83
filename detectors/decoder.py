"""The object decoder's layers: queries attend to each other and to the BEV around their reference points."""

from jaxtyping import Float, Float32
from torch import Tensor, nn

from detectors.config import BEVFormerConfig
from detectors.deformable_sampling import (
    init_projections,
    init_sampling,
    project_to_map,
    sample_deformable,
    softmax_of_few,
)
from detectors.feed_forward import FeedForward


class QuerySelfAttention(nn.Module):
    """Multi-head attention among the queries; positions are added to queries and keys, not to values."""

    def __init__(self, config: BEVFormerConfig) -> None:
        super().__init__()
        dropout = config.decoder.dropout
        self.attn = nn.MultiheadAttention(config.embed_dims, config.decoder.heads, dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.attn.out_proj.weight)

    def forward(
        self, x: Float[Tensor, "batch query channel"], position: Float[Tensor, "batch query channel"]
    ) -> Float[Tensor, "batch query channel"]:
        """``x`` plus what the queries gathered from each other."""
        placed = x + position
        gathered, _ = self.attn(placed, placed, x, need_weights=False)
        out: Tensor = x + self.dropout(gathered)
        return out


class BevCrossAttention(nn.Module):
    """Deformable attention to the BEV around each query's reference point."""

    def __init__(self, config: BEVFormerConfig) -> None:
        super().__init__()
        channels, decoder = config.embed_dims, config.decoder
        self.heads, self.points, self.grid = decoder.heads, decoder.points, config.grid
        samples = self.heads * self.points
        self.sampling_offsets = nn.Linear(channels, 2 * samples)
        self.attention_weights = nn.Linear(channels, samples)
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(decoder.dropout)
        init_sampling(self.sampling_offsets, self.attention_weights, self.heads, self.points)
        init_projections(self.value_proj, self.output_proj)

    def forward(
        self,
        x: Float[Tensor, "batch query channel"],
        position: Float[Tensor, "batch query channel"],
        reference: Float32[Tensor, "batch query 2"],
        bev: Float[Tensor, "batch cell channel"],
    ) -> Float[Tensor, "batch query channel"]:
        """``x`` plus what the queries gathered from the BEV."""
        locations, weights = self.sampling_places(x, position, reference)
        value = project_to_map(self.value_proj, bev, self.grid.shape)
        return self.with_gathered(x, sample_deformable([value], locations, weights))

    def sampling_places(
        self,
        x: Float[Tensor, "batch query channel"],
        position: Float[Tensor, "batch query channel"],
        reference: Float32[Tensor, "batch query 2"],
    ) -> tuple[Float32[Tensor, "batch query head 1 point 2"], Float32[Tensor, "batch query head 1 point"]]:
        """Where each query looks, in [0, 1] of the map, and the weight of each place; as ``sample_deformable`` asks."""
        placed = x + position
        offsets = self.sampling_offsets(placed).float().unflatten(-1, (self.heads, 1, self.points, 2))
        weights = softmax_of_few(self.attention_weights(placed).float().unflatten(-1, (self.heads, 1, self.points)))
        size = offsets.new_tensor([self.grid.cols, self.grid.rows])
        return reference[:, :, None, None, None] + offsets / size, weights

    def with_gathered(
        self, x: Float[Tensor, "batch query channel"], gathered: Float[Tensor, "batch query channel"]
    ) -> Float[Tensor, "batch query channel"]:
        """``x`` plus what was gathered, projected."""
        out: Tensor = x + self.dropout(self.output_proj(gathered))
        return out


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention to the BEV, feed-forward network; each followed by its norm."""

    def __init__(self, config: BEVFormerConfig) -> None:
        super().__init__()
        decoder = config.decoder
        self.attentions = nn.ModuleList([QuerySelfAttention(config), BevCrossAttention(config)])
        self.ffns = nn.ModuleList([FeedForward(config.embed_dims, decoder.ffn_channels, decoder.dropout)])
        self.norms = nn.ModuleList([nn.LayerNorm(config.embed_dims) for _ in range(3)])

    def forward(
        self,
        x: Float[Tensor, "batch query channel"],
        position: Float[Tensor, "batch query channel"],
        reference: Float32[Tensor, "batch query 2"],
        bev: Float[Tensor, "batch cell channel"],
    ) -> Float[Tensor, "batch query channel"]:
        """The queries after this layer."""
        x = self.norms[0](self.attentions[0](x, position))
        x = self.norms[1](self.attentions[1](x, position, reference, bev))
        out: Tensor = self.norms[2](self.ffns[0](x))
        return out


class Decoder(nn.Module):
    """The stack of layers. The head runs them one by one, since its branches refine the reference points between."""

    def __init__(self, config: BEVFormerConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList([DecoderLayer(config) for _ in range(config.decoder.layers)])
