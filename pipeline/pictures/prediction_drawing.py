"""One map of predictions beside one of ground truth: what was found, missed or made up, and where it is heading."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import AbstractPathEffect, withStroke
from numpy.typing import NDArray

from pipeline.matching import MatchedFrame
from pipeline.pictures.box_drawing import BoxStyle, draw_in_camera, draw_on_map
from pipeline.pictures.map_axes import HALO, draw_map, draw_scale_bar, label_axes
from schemas.bev_grid import BevGrid
from schemas.boxes import Boxes

FOUND = BoxStyle("#ffffff", 1.1, 3.2)
MISSED = BoxStyle("#ffe14d", 1.3, 3.3)
BY_LAST_ALONE = BoxStyle("#66ff8c", 1.3, 3.3)
BY_OTHERS_ALONE = BoxStyle("#ff8ad8", 1.3, 3.3)
RIGHT = BoxStyle("#4de1ff", 1.3, 3.2)
FALSE = BoxStyle("#ff8c1a", 1.3, 3.0)
BENEATH = BoxStyle("#ffffff", 0.5, 2.5)

ARROW_FROM_MPS = 0.5
ARROW_SECONDS = 1.0
_TEXT_HALO: list[AbstractPathEffect] = [withStroke(linewidth=1.4, foreground="black")]
_SHORT = ("car", "truck", "constr", "bus", "trailer", "barrier", "moto", "bike", "ped", "cone")
"""Names of ``CLASS_NAMES`` that fit beside a box."""


def draw_ground_truth(axes: Axes, matched: Sequence[MatchedFrame], grid: BevGrid) -> None:
    """Annotations; dashed where hidden, coloured by who found them.

    Args:
        axes: where to draw.
        matched: the same frame, matched with each detector.
        grid: gives the extent.
    """
    _map(axes, grid)
    for boxes, style in styled_annotations(matched):
        _boxes(axes, boxes, style, grid)


def styled_annotations(matched: Sequence[MatchedFrame]) -> Iterator[tuple[Boxes, BoxStyle]]:
    """The annotations of a frame in groups that look alike."""
    annotated, hidden = matched[0].annotated, matched[0].sightings.hidden()
    found = np.stack([frame.found() for frame in matched])
    by_all, by_none = found.all(axis=0), ~found.any(axis=0)
    by_last = found[-1] & ~found[:-1].any(axis=0) & ~by_all
    groups = (FOUND, by_all), (MISSED, by_none), (BY_LAST_ALONE, by_last)
    for style, chosen in (*groups, (BY_OTHERS_ALONE, ~(by_all | by_none | by_last))):
        yield annotated.select(chosen & ~hidden), style
        yield annotated.select(chosen & hidden), replace(style, line="--")


def draw_boxes_in_camera(axes: Axes, matched: MatchedFrame, image_from_lidar: NDArray[np.float64]) -> None:
    """Annotations and kept detections in an image, coloured as on the maps."""
    for boxes, style in styled_annotations([matched]):
        draw_in_camera(axes, boxes, image_from_lidar, style)
    for style, chosen in ((FALSE, matched.match < 0), (RIGHT, matched.match >= 0)):
        draw_in_camera(axes, matched.detected.select(chosen), image_from_lidar, style)


def draw_predictions(axes: Axes, matched: MatchedFrame, grid: BevGrid) -> None:
    """Kept detections with their scores, right and false ones in two colours, over thin lines of the annotations."""
    _map(axes, grid)
    draw_on_map(axes, matched.annotated, BENEATH)
    _boxes(axes, matched.detected.select(matched.match < 0), FALSE, grid)
    _boxes(axes, matched.detected.select(matched.match >= 0), RIGHT, grid)


def legend_handles(names: Sequence[str]) -> list[Line2D]:
    """What colours, dashes and arrows mean.

    Args:
        names: of the detectors.
    """
    arrow = Line2D([], [], color="white", linewidth=1.1, marker=">", markersize=4, path_effects=_TEXT_HALO)
    arrow.set_label(f"way in {ARROW_SECONDS:g} s, from {ARROW_FROM_MPS:g} m/s on")
    truth = [_handle(FOUND, "annotated and found"), _handle(MISSED, "annotated, not found")]
    if len(names) == 2:
        truth = [_handle(FOUND, "annotated, found by both"), _handle(MISSED, "annotated, found by neither")]
        truth.append(_handle(BY_LAST_ALONE, f"found by {names[1]} alone"))
        truth.append(_handle(BY_OTHERS_ALONE, f"found by {names[0]} alone"))
    hidden = _handle(replace(FOUND, line="--"), "annotated, hidden now (0-40 % seen)")
    predicted = [_handle(RIGHT, "predicted, within 2 m of one"), _handle(FALSE, "predicted, not there")]
    return [*truth, hidden, arrow, *predicted]


def _map(axes: Axes, grid: BevGrid) -> None:
    draw_map(axes, None, grid)
    draw_scale_bar(axes)
    label_axes(axes)


def _boxes(axes: Axes, boxes: Boxes, style: BoxStyle, grid: BevGrid) -> None:
    draw_on_map(axes, boxes, style)
    _draw_arrows(axes, boxes, style)
    x_min, y_min, _, x_max, y_max, _ = grid.extent_m
    for box in range(len(boxes)):
        x, y = boxes.center_m[box, :2].tolist()
        if x_min < x < x_max and y_min < y < y_max:
            words = axes.text(x, y - _half_height_m(boxes, box), _words(boxes, box), color=style.color, fontsize=5.5)
            words.set(ha="center", va="top", path_effects=_TEXT_HALO, zorder=style.order + 1, clip_on=True)


def _draw_arrows(axes: Axes, boxes: Boxes, style: BoxStyle) -> None:
    moving = np.flatnonzero(np.hypot(*boxes.velocity_mps.T) >= ARROW_FROM_MPS)
    for start, way_m in zip(boxes.center_m[moving, :2], boxes.velocity_mps[moving] * ARROW_SECONDS, strict=True):
        arrow = {"arrowstyle": "-|>", "color": style.color, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}
        drawn = axes.annotate("", xy=tuple(start + way_m), xytext=tuple(start), arrowprops=arrow, annotation_clip=True)
        assert drawn.arrow_patch is not None, "it was given properties"
        drawn.arrow_patch.set(path_effects=_TEXT_HALO, zorder=style.order + 0.5, mutation_scale=5.5)


def _half_height_m(boxes: Boxes, box: int) -> float:
    """How far a box reaches down on the map from its centre."""
    width, length = boxes.size_wlh_m[box, :2].tolist()
    heading_rad = -boxes.yaw_rad[box] - np.pi / 2
    return float(abs(np.sin(heading_rad)) * length + abs(np.cos(heading_rad)) * width) / 2


def _words(boxes: Boxes, box: int) -> str:
    name = _SHORT[boxes.labels[box]]
    scores: NDArray[np.float64] | None = boxes.scores
    return name if scores is None else f"{name} {scores[box]:.2f}".replace("0.", ".")


def _handle(style: BoxStyle, label: str) -> Line2D:
    line = Line2D([], [], color=style.color, linewidth=style.width_pt + 0.3, linestyle=style.line, label=label)
    line.set_path_effects(HALO)
    return line
