"""A toy Lift-Splat-Shoot (Philion and Fidler, ECCV 2020) as a teacher of one's own; bring_your_own_teacher.md explains.

make cache-teacher ARGS="--teacher docs/toy_lss_teacher.py:toy_lss"
"""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from schemas.bev_grid import BevGrid
from schemas.boxes import CLASS_NAMES
from schemas.features import FeatureSpec
from schemas.frames import CameraInputs
from schemas.preprocessing import Preprocessing

DEPTHS_M = torch.arange(1.0, 45.0, 1.0)
CHANNELS, STRIDE = 48, 8


class ToyLSS(nn.Module):
    """Per pixel a distribution over depths; its features are spread along the ray and summed in the cells they hit."""

    preprocessing = Preprocessing(color_order="rgb", mean=(124, 116, 104), std=(58, 57, 57), scale=0.5)
    grid = BevGrid(rows=64, cols=64, extent_m=(-32.0, -32.0, -2.5, 32.0, 32.0, 1.5))  # the demo student's ground
    class_names = CLASS_NAMES

    def __init__(self) -> None:
        super().__init__()
        sizes = (3, 32, 64, len(DEPTHS_M) + CHANNELS)
        convs = [nn.Conv2d(before, after, 3, stride=2, padding=1) for before, after in pairwise(sizes)]
        self.images = nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2])
        self.ground = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.ReLU())
        self.heatmap = nn.Conv2d(CHANNELS, len(CLASS_NAMES), 1)

    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        """What is stored of every frame, and how."""
        bev = FeatureSpec(
            name="bev",
            dims=("y", "x", "channel"),
            shape=(*self.grid.shape, CHANNELS),
            encoding="affine",
            scale_dims=("channel",),
            description="BEV features of the toy LSS.",
        )
        heatmap = FeatureSpec(
            name="heatmap",
            dims=("y", "x", "class"),
            shape=(*self.grid.shape, len(CLASS_NAMES)),
            encoding="unit",
            description="Probability that an object of the class has its centre in the cell.",
        )
        return bev, heatmap

    def features(self, inputs: CameraInputs, previous: None) -> tuple[Mapping[str, Tensor], None]:  # noqa: ARG002
        """One frame; this teacher has no memory."""
        images = torch.from_numpy(inputs.images).to(self.heatmap.weight.device)
        depth, context = self.images(images).split([len(DEPTHS_M), CHANNELS], dim=1)
        cells = cells_of_rays(inputs.image_from_lidar, depth.shape[-2:], self.grid).to(images.device)
        bev = self.ground(splat(depth.softmax(dim=1), context, cells, self.grid)[None])
        heatmap = self.heatmap(bev).sigmoid()
        return {"bev": bev[0].permute(1, 2, 0), "heatmap": heatmap[0].permute(1, 2, 0)}, None


def cells_of_rays(image_from_lidar: NDArray[np.float64], size_hw: tuple[int, int], grid: BevGrid) -> Tensor:
    """(camera, depth, row, col) of the feature map: the flat BEV cell each point falls into, rows·cols when none."""
    rows, cols = torch.meshgrid(*(STRIDE * (torch.arange(size) + 0.5) for size in size_hw), indexing="ij")
    depth = DEPTHS_M[:, None, None].double().expand(-1, *size_hw)
    rays = torch.stack([cols * depth, rows * depth, depth, torch.ones_like(depth)], dim=-1)
    lidar_from_image = torch.from_numpy(np.linalg.inv(image_from_lidar))
    points = torch.einsum("kij,dhwj->kdhwi", lidar_from_image, rays)
    low, size = torch.tensor(grid.extent_m[:3]), torch.tensor([*grid.cell_m, grid.size_m[2]])
    x, y, z = ((points[..., :3] - low) / size).floor().long().unbind(-1)
    inside = (x >= 0) & (x < grid.cols) & (y >= 0) & (y < grid.rows) & (z == 0)
    return torch.where(inside, y * grid.cols + x, grid.rows * grid.cols)


def splat(depth: Tensor, context: Tensor, cells: Tensor, grid: BevGrid) -> Tensor:
    """(channel, row, col): depth probability times context, summed over all points of a cell."""
    ground = torch.zeros(grid.rows * grid.cols + 1, context.shape[1], device=context.device)
    for each_depth, each_context, each_cells in zip(depth, context, cells, strict=True):
        points = torch.einsum("dhw,chw->dhwc", each_depth, each_context)
        ground.index_add_(0, each_cells.flatten(), points.flatten(0, 2).float())
    return ground[:-1].T.reshape(-1, *grid.shape)


def toy_lss(checkpoint: Path | None, device: torch.device) -> ToyLSS:
    """What ``--teacher`` calls: seeded random weights unless a checkpoint is given."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ToyLSS()
    if checkpoint is not None:
        network.load_state_dict(load_file(checkpoint))
    return network.to(device).eval()
