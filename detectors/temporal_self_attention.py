"""Temporal self-attention: every BEV cell looks around itself in the previous BEV and in the current one."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn

from detectors.config import BEVFormerConfig
from detectors.deformable_sampling import (
    init_projections,
    init_sampling,
    project_to_map,
    sample_deformable,
    softmax_of_few,
)
from detectors.ego_motion import BevHistory
from detectors.outputs import TemporalAttention
from detectors.reference_points import cell_centers
from schemas.bev_grid import BevGrid

SOURCES = 2
"""0 the previous BEV, 1 the current one."""


@dataclass(frozen=True, eq=False)
class TemporalContext:
    """What all encoder layers share of the two BEVs.

    Attributes:
        references: reference points on the previous and on the current BEV, in [0, 1] of the map.
        previous: the aligned previous BEV; None when no sample has one.
        current: the encoder's input, which stands for the current BEV in every layer where there is history.
        present: which samples have history.
    """

    references: Float32[Tensor, "source batch cell 2"]
    previous: Float[Tensor, "batch cell channel"] | None
    current: Float[Tensor, "batch cell channel"]
    present: Bool[Tensor, " batch"] | None

    def sources(self, x: Float[Tensor, "batch cell channel"]) -> tuple[Tensor, Tensor]:
        """The two BEVs a layer reads, given its own input, which stands for both where there is no history."""
        if self.previous is None or self.present is None:
            return x, x
        present = self.present[:, None, None]
        return torch.where(present, self.previous, x), torch.where(present, self.current, x)


def temporal_context(
    encoder_input: Float[Tensor, "batch cell channel"],
    history: BevHistory | None,
    grid: BevGrid,
    shift_both_references: bool,
) -> TemporalContext:
    """Reference points and maps for one frame.

    A cell's place on the previous map is its centre plus the ego shift. ``shift_both_references`` moves the current
    map's reference points too: a slip of the code that trained the published weights, which therefore expect it.
    """
    batch = len(encoder_input)
    centers = cell_centers(grid, encoder_input.device).expand(batch, -1, -1)
    if history is None:
        return TemporalContext(torch.stack([centers, centers]), None, encoder_input, None)
    shift = torch.where(history.present[:, None], history.shift, 0)[:, None]
    shifted = centers + shift
    references = torch.stack([shifted, shifted if shift_both_references else centers])
    return TemporalContext(references, history.bev, encoder_input, history.present)


class TemporalSelfAttention(nn.Module):
    """Deformable attention over (previous, current) BEV, averaged over the two."""

    def __init__(self, config: BEVFormerConfig) -> None:
        super().__init__()
        channels, self.heads, self.points = config.embed_dims, config.encoder.heads, config.encoder.temporal_points
        self.grid = config.grid
        samples = self.heads * SOURCES * self.points
        self.sampling_offsets = nn.Linear(2 * channels, 2 * samples)
        self.attention_weights = nn.Linear(2 * channels, samples)
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(config.encoder.dropout)
        init_sampling(self.sampling_offsets, self.attention_weights, self.heads, self.points)
        init_projections(self.value_proj, self.output_proj)

    def forward(
        self,
        x: Float[Tensor, "batch cell channel"],
        position: Float[Tensor, "cell channel"],
        context: TemporalContext,
    ) -> tuple[Float[Tensor, "batch cell channel"], TemporalAttention]:
        """``x`` plus what was gathered, and where it was gathered."""
        previous, current = context.sources(x)
        query = torch.cat([previous, x + position], dim=-1)
        offsets = self.sampling_offsets(query).float().unflatten(-1, (self.heads, SOURCES, self.points, 2))
        logits = self.attention_weights(query).float().unflatten(-1, (self.heads, SOURCES, self.points))
        # Each source's weights sum to one by themselves; the two results are then averaged.
        weights = softmax_of_few(logits)
        value = project_to_map(self.value_proj, previous, self.grid.shape)
        values = (value, value if current is previous else project_to_map(self.value_proj, current, self.grid.shape))
        size = offsets.new_tensor([self.grid.cols, self.grid.rows])
        gathered = [
            sample_deformable(
                [value],
                (context.references[source][:, :, None, None] + offsets[:, :, :, source] / size).unsqueeze(3),
                weights[:, :, :, source].unsqueeze(3),
            )
            for source, value in enumerate(values)
        ]
        out = x + self.dropout(self.output_proj((gathered[0] + gathered[1]) / SOURCES))
        shape = self.grid.shape
        looked = weights.reshape(len(weights), *shape, *weights.shape[2:])
        return out, TemporalAttention(offsets.unflatten(1, shape), looked)
