"""Where the objects are, as a soft mask over the BEV: one Gaussian per annotated box, the largest wins."""

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from schemas.bev_grid import BevGrid
from schemas.boxes import Boxes


def object_heatmap(boxes: Boxes, grid: BevGrid, min_overlap: float, min_radius_cells: int) -> NDArray[np.float32]:
    """Gaussians at the boxes' centre cells, sized by ``gaussian_radius_cells``, σ = (2·radius + 1) / 6.

    A centre is cut to a whole cell towards zero, in float32, so one that lies up to a cell before row or column 0 still
    counts; boxes without width or length, and those off the grid, do not. Source: FD3D's release, as in CenterNet.

    Returns:
        (rows, cols) float32 in [0, 1].
    """
    heatmap = np.zeros(grid.shape, dtype=np.float32)
    cell_xy_m = np.array(grid.cell_m, dtype=np.float32)
    origin_xy_m = np.array(grid.extent_m[:2], dtype=np.float32)
    centers = ((boxes.center_m[:, :2].astype(np.float32) - origin_xy_m) / cell_xy_m).astype(np.int64)
    sizes = boxes.size_wlh_m[:, :2] / np.array(grid.cell_m)
    for (col, row), (width, length) in zip(centers, sizes, strict=True):
        if width > 0 and length > 0 and 0 <= row < grid.rows and 0 <= col < grid.cols:
            radius = max(min_radius_cells, int(gaussian_radius_cells(width, length, min_overlap)))
            _draw(heatmap, int(row), int(col), radius)
    return heatmap


def gaussian_radius_cells(width: float, length: float, min_overlap: float) -> float:
    """How far a box of this size (in cells) may slip diagonally before its overlap with itself falls below a bound.

    The smallest of CornerNet's three cases (inside, outside, shifted), each with the root as CenterNet's code takes
    it, (b + √(b² − 4ac)) / 2 without dividing by a: not the geometric root, but what published weights were made with.
    """
    total, area = width + length, width * length
    shifted = (total + sqrt(total**2 - 4 * area * (1 - min_overlap) / (1 + min_overlap))) / 2
    inside = (2 * total + sqrt(4 * total**2 - 16 * (1 - min_overlap) * area)) / 2
    outside = (
        -2 * min_overlap * total + sqrt(4 * (min_overlap * total) ** 2 + 16 * min_overlap * (1 - min_overlap) * area)
    ) / 2
    return min(shifted, inside, outside)


def _draw(heatmap: NDArray[np.float32], row: int, col: int, radius: int) -> None:
    """Raise the map, in place, to a Gaussian on the square of this radius, cut off at the border."""
    rows = np.arange(max(0, row - radius), min(heatmap.shape[0], row + radius + 1))
    cols = np.arange(max(0, col - radius), min(heatmap.shape[1], col + radius + 1))
    sigma = (2 * radius + 1) / 6
    squared = (rows - row)[:, None] ** 2 + (cols - col)[None, :] ** 2
    gaussian = np.exp(-squared / (2 * sigma**2)).astype(np.float32)
    patch = heatmap[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    np.maximum(patch, gaussian, out=patch)
