"""Boxes in two styles that stay apart on any background: annotations thin white, the teacher's thick orange."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from pipeline.pictures.frame_contents import FrameContents
from pipeline.pictures.map_axes import HALO
from scenes.geometry import box_edges_in_image
from schemas.boxes import CLASS_NAMES, Boxes, box_corners_m

_LABELLED_HEIGHT = 0.2
"""Boxes that fill less of an image's height carry no text."""

_NOSE = 0.4
"""Length of the line that shows the heading, in half lengths of the box."""


@dataclass(frozen=True)
class BoxStyle:
    """How one kind of boxes looks; lines stand on a black line that is a little wider."""

    color: str
    width_pt: float
    order: float
    line: Literal["-", "--"] = "-"


ANNOTATED = BoxStyle("#ffffff", 0.9, 3.2)
DETECTED = BoxStyle("#ff9500", 1.5, 3.0)


def draw_on_map(axes: Axes, boxes: Boxes, style: BoxStyle) -> None:
    """Outlines from above; a line out of the front shows the heading."""
    corners = box_corners_m(boxes)[:, :4, :2]
    outlines = [np.vstack([box, box[:1]]) for box in corners]
    fronts = [(box[:2].mean(axis=0), box[:2].mean(axis=0) - box.mean(axis=0)) for box in corners]
    noses = [np.stack([front, front + _NOSE * ahead]) for front, ahead in fronts]
    _draw_lines(axes, [*outlines, *noses], style)


def draw_in_camera(axes: Axes, boxes: Boxes, image_from_lidar: NDArray[np.float64], style: BoxStyle) -> None:
    """Wire frames in an image of original size; scored boxes of some size carry class and score."""
    segments, owner = box_edges_in_image(boxes, image_from_lidar)
    _draw_lines(axes, list(segments), style)
    if boxes.scores is None:
        return
    width, height = axes.get_xlim()[1], axes.get_ylim()[0]
    for box in np.unique(owner):
        (left, top), (right, bottom) = (
            edge(segments[owner == box].reshape(-1, 2), axis=0) for edge in (np.min, np.max)
        )
        inside = 0 <= (left + right) / 2 <= width and top >= 0 and bottom <= 1.2 * height
        if inside and bottom - top > _LABELLED_HEIGHT * height:
            words = f"{CLASS_NAMES[boxes.labels[box]].replace('_', ' ')} {boxes.scores[box]:.2f}"
            label = axes.text((left + right) / 2, top, words, color=style.color, fontsize=5.5, clip_on=True)
            label.set(ha="center", va="bottom", bbox={"facecolor": "black", "alpha": 0.65, "pad": 0.8, "linewidth": 0})


def draw_both_on_map(axes: Axes, contents: FrameContents) -> None:
    """The frame's annotations and the teacher's boxes, as far as there are any."""
    for boxes, style in ((contents.annotated, ANNOTATED), (contents.detected, DETECTED)):
        if boxes is not None:
            draw_on_map(axes, boxes, style)


def legend_handles(contents: FrameContents, min_score: float) -> list[Line2D]:
    """Lines for a legend: what the two styles stand for, as far as they occur."""
    handles = []
    if contents.annotated is not None:
        handles.append(_handle(ANNOTATED, f"annotated ({len(contents.annotated)})"))
    if contents.detected is not None:
        handles.append(_handle(DETECTED, f"teacher, score ≥ {min_score:g} ({len(contents.detected)})"))
    return handles


def _handle(style: BoxStyle, label: str) -> Line2D:
    line = Line2D([], [], color=style.color, linewidth=style.width_pt + 0.3, label=label)
    line.set_path_effects(HALO)
    return line


def _draw_lines(axes: Axes, lines: list[NDArray[np.float64]], style: BoxStyle) -> None:
    under = LineCollection(lines, colors="black", linewidths=style.width_pt + 1.0, alpha=0.8, zorder=style.order)
    over = LineCollection(lines, colors=style.color, linewidths=style.width_pt, zorder=style.order + 0.1)
    over.set_linestyle(style.line)
    axes.add_collection(under, autolim=False)
    axes.add_collection(over, autolim=False)
