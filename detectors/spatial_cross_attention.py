"""Spatial cross-attention: every BEV cell looks into the cameras that see its pillar."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from detectors.config import BEVFormerConfig
from detectors.deformable_sampling import init_sampling, project_map, sample_deformable
from detectors.reference_points import pillar_points_m, project_to_cameras
from schemas.bev_grid import BevGrid


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
    """Which cells each camera sees, worked out once per frame for all encoder layers.

    Attributes:
        cells: for every sample and camera (sample-major), the indices of the cells with a visible reference point.
        locations: the image locations of those cells' reference points, one tensor per entry of ``cells``.
        cameras_per_cell: how many cameras see a cell, at least 1.
    """

    cells: tuple[Int64[Tensor, " _"], ...]
    locations: tuple[Float32[Tensor, "_ height 2"], ...]
    cameras_per_cell: Float32[Tensor, "batch cell"]


# How many cells are seen depends on the data; all that follows compiles.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def visible_cells(features: CameraFeatures, grid: BevGrid, heights: int) -> VisibleCells:
    """Project the pillars and list, per camera, the cells of which any height is visible."""
    points_m = pillar_points_m(grid, heights, features.image_from_lidar.device)
    locations, visible = project_to_cameras(points_m, features.image_from_lidar, features.image_hw)
    seen = visible.any(-1)
    sample, camera, cell = seen.nonzero(as_tuple=True)
    counts: list[int] = seen.sum(-1).flatten().tolist()
    return VisibleCells(
        cells=torch.split(cell, counts),
        locations=torch.split(locations[sample, camera, cell], counts),
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
        nn.init.xavier_uniform_(self.value_proj.weight)
        nn.init.zeros_(self.value_proj.bias)

    def forward(
        self,
        x: Float[Tensor, "batch cell channel"],
        maps: tuple[Float[Tensor, "batch camera channel _ _"], ...],
        visible: VisibleCells,
    ) -> Float32[Tensor, "batch cell channel"]:
        """Mean over the cameras that see a cell of what it gathers there; zero for cells that none sees.

        Offsets and weights depend on the cell alone, so all its cameras share them.
        """
        values = [project_map(self.value_proj, level_map.flatten(0, 1)) for level_map in maps]
        offsets, weights = self._pattern(x, [level_map.shape[-2:] for level_map in maps])
        gathered = torch.zeros(x.shape, device=x.device)
        cameras = maps[0].shape[1]
        for number, (cells, locations) in enumerate(zip(visible.cells, visible.locations, strict=True)):
            sample = number // cameras
            # Point p belongs to height p mod heights, so points unflatten to (points / heights, heights).
            around = offsets[sample, cells] + locations[:, None, None, None]
            samples = sample_deformable(
                [level_values[number, None] for level_values in values],
                around.flatten(3, 4)[None],
                weights[sample, cells][None],
            )
            gathered[sample].index_add_(0, cells, samples[0])
        return gathered / visible.cameras_per_cell[..., None]

    def _pattern(
        self, x: Float[Tensor, "batch cell channel"], shapes: list[torch.Size]
    ) -> tuple[Float32[Tensor, "batch cell head level _ height 2"], Float32[Tensor, "batch cell head level point"]]:
        """Offsets as fractions of the image, and weights that sum to one over all levels and points of a head."""
        size = torch.tensor([[cols, rows] for rows, cols in shapes], device=x.device, dtype=torch.float32)
        groups = (self.heads, self.levels, self.points // self.heights, self.heights, 2)
        offsets = self.sampling_offsets(x).float().unflatten(-1, groups) / size[:, None, None]
        weights = self.attention_weights(x).float().unflatten(-1, (self.heads, -1)).softmax(-1)
        return offsets, weights.unflatten(-1, (self.levels, self.points))


class SpatialCrossAttention(nn.Module):
    """Camera sampling, output projection and residual."""

    def __init__(self, config: BEVFormerConfig) -> None:
        super().__init__()
        self.deformable_attention = CameraSampling(config)
        self.output_proj = nn.Linear(config.embed_dims, config.embed_dims)
        self.dropout = nn.Dropout(config.encoder.dropout)
        nn.init.xavier_uniform_(self.output_proj.weight)
        nn.init.zeros_(self.output_proj.bias)

    def forward(
        self,
        x: Float[Tensor, "batch cell channel"],
        maps: tuple[Float[Tensor, "batch camera channel _ _"], ...],
        visible: VisibleCells,
    ) -> Float[Tensor, "batch cell channel"]:
        """``x`` plus what its cameras show."""
        out: Tensor = x + self.dropout(self.output_proj(self.deformable_attention(x, maps, visible)))
        return out
