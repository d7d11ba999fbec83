"""A map seen from above, forward up: BEV colours, the car, axes in metres and a scale bar."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Polygon, Rectangle
from matplotlib.patheffects import AbstractPathEffect, withStroke
from numpy.typing import NDArray

from schemas.bev_grid import BevGrid

HALO: list[AbstractPathEffect] = [withStroke(linewidth=2.2, foreground="black")]
_EGO_OUTLINE_M = np.array([(-0.9, -1.2), (-0.9, 1.9), (0.0, 2.9), (0.9, 1.9), (0.9, -1.2)])
"""The recording car around its LiDAR, nose forward."""


def draw_map(axes: Axes, rgb: NDArray[np.float64] | None, grid: BevGrid, *, faded: float = 0.0) -> None:
    """Colours of a map, or grey where there are none, with the car and axes.

    Args:
        axes: where to draw.
        rgb: (rows, cols, 3) in [0, 1] over the whole extent of ``grid``.
        grid: gives the extent.
        faded: 0 leaves the colours, 1 makes them white.
    """
    x_min, y_min, _, x_max, y_max, _ = grid.extent_m
    axes.set_facecolor("0.55")
    if rgb is not None:
        shown = rgb + faded * (1 - rgb)
        axes.imshow(shown, origin="lower", extent=(x_min, x_max, y_min, y_max), interpolation="nearest", aspect="auto")
    axes.add_patch(Polygon(_EGO_OUTLINE_M, closed=True, facecolor="white", edgecolor="black", linewidth=0.8, zorder=4))
    axes.set(xlim=(x_min, x_max), ylim=(y_min, y_max), aspect="equal")
    axes.tick_params(labelsize=7, length=2, pad=1.5)


def label_axes(axes: Axes) -> None:
    """Say what the axes are."""
    axes.set_xlabel("x, right (m)", fontsize=7.5, labelpad=1)
    axes.set_ylabel("y, forward (m)", fontsize=7.5, labelpad=0)


def draw_scale_bar(axes: Axes) -> None:
    """A bar of a round length in the lower left corner; call it after the limits are final."""
    (x_min, x_max), (y_min, y_max) = axes.get_xlim(), axes.get_ylim()
    width, height = x_max - x_min, y_max - y_min
    length_m = max(size for size in (0.5, 1, 2, 5, 10, 20, 50) if size <= max(width / 4, 0.5))
    left, bottom = x_min + 0.04 * width, y_min + 0.045 * height
    bar = Rectangle((left, bottom), length_m, 0.012 * height, facecolor="white", edgecolor="black", linewidth=0.7)
    axes.add_patch(bar).set_zorder(6)
    words = axes.text(left + length_m / 2, bottom + 0.025 * height, f"{length_m:g} m", color="white", fontsize=7)
    words.set(ha="center", va="bottom", path_effects=HALO, zorder=6)
