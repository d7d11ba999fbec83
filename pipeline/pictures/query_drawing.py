"""Object queries from above: where they start, where the decoder moves them, and how sure it is."""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize

from pipeline.pictures.box_drawing import ANNOTATED, draw_on_map
from pipeline.pictures.frame_contents import FrameContents
from pipeline.pictures.map_axes import draw_map, draw_scale_bar
from schemas.bev_grid import BevGrid

_COLORS = colormaps["plasma"]
_ROOMY = 200
"""More queries than this get smaller marks."""


def score_colors(top_score: float) -> ScalarMappable:
    """Colours of scores from 0 to the scene's best, rounded up to a tenth."""
    return ScalarMappable(Normalize(0.0, max(0.1, np.ceil(10 * top_score - 1e-9) / 10)), _COLORS)


def draw_queries(axes: Axes, contents: FrameContents, grid: BevGrid, colors: ScalarMappable, *, large: bool) -> None:
    """Initial reference points as small dots, refined ones as larger dots in the colour of their score, lines between.

    The best queries lie on top.
    """
    assert contents.queries is not None, "the caller asks only where there are queries"
    grey = None if contents.bev_rgb is None else np.repeat(contents.bev_rgb.mean(axis=-1, keepdims=True), 3, axis=-1)
    draw_map(axes, grey, grid, faded=0.45)
    if contents.annotated is not None:
        draw_on_map(axes, contents.annotated, ANNOTATED)
    order = contents.queries.scores.argsort(kind="stable")
    start, end = contents.queries.start_m[order], contents.queries.end_m[order]
    rgba = colors.to_rgba(contents.queries.scores[order])
    scale = (1.0 if large else 0.55) * min(1.0, np.sqrt(_ROOMY / len(order)))
    moves = LineCollection(list(np.stack([start, end], axis=1)), colors=rgba, linewidths=0.9 * scale, zorder=3.5)
    moves.set_alpha(0.75)
    axes.add_collection(moves, autolim=False)
    axes.scatter(
        start[:, 0], start[:, 1], s=6 * scale, c="white", edgecolors="black", linewidths=0.4 * scale, zorder=3.6
    )
    axes.scatter(end[:, 0], end[:, 1], s=26 * scale, c=rgba, edgecolors="black", linewidths=0.5 * scale, zorder=3.7)
    draw_scale_bar(axes)
