"""Spatial cross-attention: every BEV cell looks into the cameras that see its pillar."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from detectors.config import BEVFormerConfig
from detectors.deformable_sampling import (
    init_projections,
    init_sampling,
    project_map,
    sample_deformable,
    softmax_of_few,
)
from detectors.reference_points import pillar_points_m, project_to_cameras
from schemas.bev_grid import BevGrid

_OWN_HEIGHT_LOGIT = 4.0
"""Gives a head's own height nearly all of its weight, while the others can still be learned."""


@dataclass(frozen=True, eq=False)
class CameraFeatures:
    """Image features with their geometry.

    Attributes:
        maps: pyramid levels, finest first, each of its own size; camera and level embeddings not yet added.
        image_from_lidar: pixels of the padded network input from LiDAR metres.
        image_hw: height and width of that input.
    """

    maps: tuple[Float[Tensor, "batch camera channel _ _"], ...]
    image_from_lidar: Float32[Tensor, "batch camera 4 4"]
    image_hw: tuple[int, int]


@dataclass(frozen=True, eq=False)
class VisibleCells:
    """Who sees what, worked out once per frame for all encoder layers.

    Attributes:
        cells: one entry per cell and camera that sees any height of its pillar, sorted by sample, then camera, then
            cell: the cell's index in the flattened (sample, cell).
        locations: where in that camera's image the pillar's reference points are, normalised.
        counts: entries of each (sample, camera).
        cameras_per_cell: how many cameras see a cell, at least 1.
    """

    cells: Int64[Tensor, " seen"]
    locations: Float32[Tensor, "seen height 2"]
    counts: list[int]
    cameras_per_cell: Float32[Tensor, "batch cell"]


# How many cells are seen depends on the data; all that follows compiles.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def visible_cells(features: CameraFeatures, grid: BevGrid, heights: int) -> VisibleCells:
    """Project the pillars and list, per camera, the cells of which any height is visible."""
    points_m = pillar_points_m(grid, heights, features.image_from_lidar.device)
    locations, visible = project_to_cameras(points_m, features.image_from_lidar, features.image_hw)
    seen = visible.any(-1)
    sample, camera, cell = seen.nonzero(as_tuple=True)
    return VisibleCells(
        cells=sample * seen.shape[-1] + cell,
        locations=locations[sample, camera, cell],
        counts=seen.sum(-1).flatten().tolist(),
        cameras_per_cell=seen.sum(1).clamp(min=1).float(),
    )


class CameraSampling(nn.Module):
    """Deformable attention around a pillar's projected reference points, at all pyramid levels."""

    def __init__(self, config: BEVFormerConfig) -> None:
        super().__init__()
        channels, encoder = config.embed_dims, config.encoder
        self.heads, self.heights, self.points = encoder.heads, encoder.heights, encoder.spatial_points
        self.levels = config.neck.levels
        samples = self.heads * self.levels * self.points
        self.sampling_offsets = nn.Linear(channels, 2 * samples)
        self.attention_weights = nn.Linear(channels, samples)
        self.value_proj = nn.Linear(channels, channels)
        init_sampling(self.sampling_offsets, self.attention_weights, self.heads, self.points)
        if encoder.spatial_start == "pillar":
            self._start_at_the_pillar()
        init_projections(self.value_proj)

    def forward(
        self,
        x: Float[Tensor, "batch cell channel"],
        maps: tuple[Float[Tensor, "batch camera channel _ _"], ...],
        visible: VisibleCells,
    ) -> Float32[Tensor, "batch cell channel"]:
        """Mean over the cameras that see a cell of what it gathers there; zero for cells that none sees."""
        values = [project_map(self.value_proj, level_map.flatten(0, 1)) for level_map in maps]
        # Offsets and weights depend on the cell alone. Most cells are seen by one camera, so gathering the cells first
        # costs less than computing per cell and gathering the much wider results.
        asking = x.flatten(0, 1).index_select(0, visible.cells)
        locations, weights = self._pattern(asking, visible, [level_map.shape[-2:] for level_map in maps])
        per_camera = zip(
            torch.split(locations, visible.counts),
            torch.split(weights, visible.counts),
            *(torch.split(level_values, 1) for level_values in values),
            strict=True,
        )
        samples = [
            sample_deformable(camera_maps, camera_locations[None], camera_weights[None])[0]
            for camera_locations, camera_weights, *camera_maps in per_camera
        ]
        gathered = torch.zeros(x.flatten(0, 1).shape, device=x.device).index_add(0, visible.cells, torch.cat(samples))
        return gathered.reshape(x.shape) / visible.cameras_per_cell[..., None]

    @torch.no_grad()
    def _start_at_the_pillar(self) -> None:
        """Head k looks at height k mod heights, where that projects to, in every level."""
        own = torch.arange(self.points)[None] % self.heights == torch.arange(self.heads)[:, None] % self.heights
        logits = torch.where(own, _OWN_HEIGHT_LOGIT, 0.0)
        self.attention_weights.bias.copy_(logits[:, None].expand(-1, self.levels, -1).flatten())
        self.sampling_offsets.bias.zero_()

    def _pattern(
        self, asking: Float[Tensor, "seen channel"], visible: VisibleCells, shapes: list[torch.Size]
    ) -> tuple[Float32[Tensor, "seen head level point 2"], Float32[Tensor, "seen head level point"]]:
        """Sampling locations, and weights that sum to one over all levels and points of a head."""
        size = torch.tensor([[cols, rows] for rows, cols in shapes], device=asking.device, dtype=torch.float32)
        # Point p belongs to height p mod heights.
        groups = (self.heads, self.levels, self.points // self.heights, self.heights, 2)
        offsets = self.sampling_offsets(asking).float().unflatten(-1, groups) / size[:, None, None]
        locations = offsets + visible.locations[:, None, None, None]
        weights = softmax_of_few(self.attention_weights(asking).float().unflatten(-1, (self.heads, -1)))
        return locations.flatten(3, 4), weights.reshape(*weights.shape[:-1], self.levels, self.points)


class SpatialCrossAttention(nn.Module):
    """Camera sampling, output projection and residual."""

    def __init__(self, config: BEVFormerConfig) -> None:
        super().__init__()
        self.deformable_attention = CameraSampling(config)
        self.output_proj = nn.Linear(config.embed_dims, config.embed_dims)
        self.dropout = nn.Dropout(config.encoder.dropout)
        init_projections(self.output_proj)

    def forward(
        self,
        x: Float[Tensor, "batch cell channel"],
        maps: tuple[Float[Tensor, "batch camera channel _ _"], ...],
        visible: VisibleCells,
    ) -> Float[Tensor, "batch cell channel"]:
        """``x`` plus what its cameras show."""
        out: Tensor = x + self.dropout(self.output_proj(self.deformable_attention(x, maps, visible)))
        return out
