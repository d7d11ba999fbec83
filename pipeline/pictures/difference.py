"""The BEV feature of one frame in two caches, and how far apart they are cell by cell."""

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from pipeline.pictures.bev_colors import BevColors
from pipeline.pictures.canvas import Canvas
from pipeline.pictures.map_axes import draw_map, draw_scale_bar, label_axes
from schemas.bev_grid import BevGrid

_SIDE_IN = 4.0


def difference_map(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Length of the difference over the channels: (rows, cols) float64 from two (rows, cols, channel) float32."""
    lengths: NDArray[np.float64] = np.linalg.norm(ours.astype(np.float64) - theirs, axis=-1)
    return lengths


def draw_difference(
    ours: NDArray[np.float32], theirs: NDArray[np.float32], colors: BevColors, grid: BevGrid, heading: str
) -> Canvas:
    """Three maps: this cache's feature and the other's in the same colours, and the difference.

    Args:
        ours: (rows, cols, channel) float32.
        theirs: of the same shape.
        colors: of the other cache's scene.
        grid: gives the extent.
        heading: above the maps.
    """
    canvas = Canvas(3 * (_SIDE_IN + 0.55) + 0.75, _SIDE_IN + 1.15)
    canvas.text(0.15, 0.2, heading, 10.0, bold=True)
    apart = difference_map(ours, theirs)
    top = float(apart.max())
    shades = colormaps["magma"](apart / top if top > 0 else apart)[..., :3]
    panels = (
        ("this cache", colors.rgb(ours)),
        ("the other cache", colors.rgb(theirs)),
        (f"|difference| over the channels, at most {top:.3g}", shades),
    )
    for number, (name, rgb) in enumerate(panels):
        axes = canvas.axes(0.5 + number * (_SIDE_IN + 0.55), 0.65, _SIDE_IN, _SIDE_IN)
        draw_map(axes, rgb, grid)
        draw_scale_bar(axes)
        label_axes(axes)
        axes.set_title(name, fontsize=8, pad=3)
    scale = axes.inset_axes((1.02, 0.0, 0.035, 1.0))
    scale.imshow(
        np.linspace(0, 1, 256)[:, None], cmap="magma", origin="lower", aspect="auto", extent=(0, 1, 0, top or 1)
    )
    scale.tick_params(labelsize=6.5, length=2, pad=1.5, left=False, labelleft=False, right=True, labelright=True)
    scale.set_xticks([])
    return canvas
