"""A cell's sampling points over the maps it samples: colour is the head, area the weight."""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from pipeline.pictures.attention import CURRENT, PREVIOUS, CellSamples
from pipeline.pictures.box_drawing import ANNOTATED, draw_both_on_map, draw_on_map
from pipeline.pictures.frame_contents import FrameContents
from pipeline.pictures.map_axes import HALO, draw_map, draw_scale_bar
from schemas.bev_grid import BevGrid

_AREA_PT2 = 110.0
"""Of a point that holds all the weight of its head and source."""


def window_m(samples: CellSamples, grid: BevGrid) -> float:
    """Half the side of a view that shows the points of both sources: whole steps of 2 m, at least four cells."""
    reach = max(float(np.abs(samples.points_m - samples.references_m[:, None, None]).max()), 4 * max(grid.cell_m))
    return float(2 * np.ceil((1.15 * reach + max(grid.cell_m)) / 2))


def draw_source(
    axes: Axes, contents: FrameContents, samples: CellSamples, source: int, grid: BevGrid, half_m: float
) -> None:
    """One map around the cell's reference point, with sampling points.

    Args:
        axes: where to draw.
        contents: the frame whose map it is: the previous one for source 0 where there is one.
        samples: of the cell.
        source: 0 previous, 1 current.
        grid: of the cache.
        half_m: half the side of the view.
    """
    draw_map(axes, contents.bev_rgb, grid, faded=0.25)
    if source == CURRENT:
        draw_both_on_map(axes, contents)
    elif contents.annotated is not None:
        draw_on_map(axes, contents.annotated, ANNOTATED)
    reference = samples.references_m[source]
    heads = samples.points_m.shape[1]
    for head in range(heads):
        x, y = samples.points_m[source, head].T
        sizes = _AREA_PT2 * samples.weights[source, head]
        color = [_head_color(head)]
        axes.scatter(x, y, s=sizes, c=color, edgecolors="black", linewidths=0.5, zorder=5)
    _draw_reference(axes, samples, source, grid)
    axes.set(xlim=(reference[0] - half_m, reference[0] + half_m), ylim=(reference[1] - half_m, reference[1] + half_m))
    draw_scale_bar(axes)


def _draw_reference(axes: Axes, samples: CellSamples, source: int, grid: BevGrid) -> None:
    """The cell as a square, the reference point as a cross, and a line where the ego motion sets them apart.

    On the previous map the square stands, dashed, where the cell's coordinates are; the cross where its ground was.
    """
    reference, center = samples.references_m[source], samples.center_m
    cell_x, cell_y = grid.cell_m
    square = Rectangle((center[0] - cell_x / 2, center[1] - cell_y / 2), cell_x, cell_y, fill=False)
    square.set(edgecolor="white", linewidth=1.0, linestyle="--" if source == PREVIOUS else "-", path_effects=HALO)
    axes.add_patch(square).set_zorder(5.2)
    if np.linalg.norm(reference - center) > max(grid.cell_m) / 4:
        way = np.stack([center, reference])
        axes.plot(way[:, 0], way[:, 1], color="white", linewidth=1.2, zorder=5.3, path_effects=HALO)
    axes.plot(*reference, marker="+", color="white", markersize=8, mew=1.6, zorder=5.4, path_effects=HALO)


def legend_handles(heads: int) -> list[Line2D]:
    """What colours, sizes and marks mean."""
    cross = Line2D([], [], marker="+", ls="", color="white", mew=1.6, ms=8, label="reference point", path_effects=HALO)
    square = Line2D(
        [],
        [],
        marker="s",
        ls="",
        mfc="none",
        mec="white",
        ms=6,
        label="cell (dashed: its coordinates, on the previous map)",
        path_effects=HALO,
    )
    colors = [_dot(_head_color(head), 36.0, f"head {head}") for head in range(heads)]
    sizes = [_dot((0.7, 0.7, 0.7), _AREA_PT2 * weight, f"weight {weight:g}") for weight in (0.1, 0.25, 0.5)]
    return [cross, square, *colors, *sizes]


def _dot(color: tuple[float, float, float], area_pt2: float, label: str) -> Line2D:
    size_pt = float(np.sqrt(area_pt2))
    return Line2D([], [], marker="o", ls="", color=color, mec="black", mew=0.5, ms=size_pt, label=label)


def _head_color(head: int) -> tuple[float, float, float]:
    red, green, blue, _ = colormaps["tab10"](head % 10)
    return red, green, blue
