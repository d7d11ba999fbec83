"""Cameras with predicted and annotated boxes, and maps of what one or several detectors predict beside ground truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes

from pipeline.matching import MatchedFrame
from pipeline.pictures.cameras import CAMERA_LAYOUT, draw_image
from pipeline.pictures.canvas import Canvas
from pipeline.pictures.chosen_frames import choose_frames
from pipeline.pictures.prediction_drawing import (
    draw_boxes_in_camera,
    draw_ground_truth,
    draw_predictions,
    legend_handles,
)
from schemas.bev_grid import BevGrid
from schemas.frames import CAMERAS

_MAP_IN = 5.0
_BETWEEN_MAPS_IN = 0.5
_BETWEEN_CAMERAS_IN = 0.06
_TOP_IN = 0.78
_CAMERA_SHAPE = 9 / 16
_DPI = 110.0
_KEPT = "Shown of each class: the best detections of the split, as many as it has annotations."
_LEGEND = {"facecolor": "0.62", "edgecolor": "none", "fancybox": False, "fontsize": 7.5, "borderaxespad": 0.0}


@dataclass(frozen=True, eq=False)
class Prediction:
    """What one detector says about the frames of a split.

    Attributes:
        name: what its maps are called.
        frames: its kept detections in every frame, in the split's order.
    """

    name: str
    frames: Sequence[MatchedFrame]


@dataclass(frozen=True)
class SheetStyle:
    """What is the same on all pictures of an evaluation.

    Attributes:
        heading: above each.
        grid: gives the extent of the maps.
        data_root: where the images are.
    """

    heading: str
    grid: BevGrid
    data_root: Path


def draw_frames(predictions: Sequence[Prediction], count: int, sheet: SheetStyle, folder: Path) -> None:
    """Draw some frames of a split, spread over it, as ``<scene>-<frame>.png``.

    Args:
        predictions: of one split by one or more detectors; the last one's boxes are in the cameras, too.
        count: how many frames; the same ones whatever the detectors.
        sheet: what is the same on all pictures.
        folder: made if need be.

    Raises:
        DataError: an image cannot be read.
        OSError: the folder cannot be written.
    """
    for position in choose_frames(predictions[0].frames, count):
        frame = predictions[0].frames[position].frame
        canvas = draw_sheet(predictions, position, sheet)
        canvas.save(folder / f"{frame.scene_name}-{frame.step:03d}.png", _DPI)


def draw_sheet(predictions: Sequence[Prediction], position: int, sheet: SheetStyle) -> Canvas:
    """A picture of one frame: six cameras, and under them ground truth and each detector's predictions.

    Raises:
        DataError: an image cannot be read.
    """
    matched = [prediction.frames[position] for prediction in predictions]
    names = [prediction.name for prediction in predictions]
    frame = matched[-1].frame
    layout = _Layout(1 + len(matched))
    canvas = Canvas(layout.width_in, layout.height_in)
    canvas.text(0.12, 0.2, sheet.heading, 11.0, bold=True)
    canvas.text(0.12, 0.43, f"{frame.scene_name}, frame {frame.step}, sample {frame.sample_token}. {_KEPT}", 8.0)
    if len(names) > 1:
        canvas.text(layout.width_in - 4.0, 0.43, f"In the cameras: predictions of {names[-1]}", 8.0)
    _draw_cameras(canvas, matched[-1], sheet.data_root, layout)
    draw_ground_truth(layout.map_axes(canvas, 0, _truth_title(matched[-1])), matched, sheet.grid)
    for number, (name, predicted) in enumerate(zip(names, matched, strict=True), start=1):
        axes = layout.map_axes(canvas, number, _prediction_title(name, predicted))
        draw_predictions(axes, predicted, sheet.grid)
    handles = legend_handles(names)
    anchor = (0.5, 0.08 / canvas.height_in)
    columns = -(-len(handles) // 2)
    canvas.figure.legend(handles=handles, loc="lower center", bbox_to_anchor=anchor, ncols=columns, **_LEGEND)
    return canvas


@dataclass(frozen=True)
class _Layout:
    """Places in inches: the maps have one size, and the cameras above them fill the width."""

    maps: int

    @property
    def width_in(self) -> float:
        return 0.5 + self.maps * _MAP_IN + (self.maps - 1) * _BETWEEN_MAPS_IN + 0.15

    @property
    def camera_in(self) -> float:
        return (self.width_in - 0.2 - 2 * _BETWEEN_CAMERAS_IN) / 3

    @property
    def row_in(self) -> float:
        return self.camera_in * _CAMERA_SHAPE + 0.24

    @property
    def maps_top_in(self) -> float:
        return _TOP_IN + len(CAMERA_LAYOUT) * self.row_in + 0.22

    @property
    def height_in(self) -> float:
        return self.maps_top_in + _MAP_IN + 0.85

    def map_axes(self, canvas: Canvas, number: int, title: str) -> Axes:
        left_in = 0.5 + number * (_MAP_IN + _BETWEEN_MAPS_IN)
        axes = canvas.axes(left_in, self.maps_top_in, _MAP_IN, _MAP_IN)
        axes.set_title(title, fontsize=8, pad=3)
        return axes


def _draw_cameras(canvas: Canvas, shown: MatchedFrame, data_root: Path, layout: _Layout) -> None:
    for row, names in enumerate(CAMERA_LAYOUT):
        for column, name in enumerate(names):
            left_in = 0.1 + column * (layout.camera_in + _BETWEEN_CAMERAS_IN)
            top_in = _TOP_IN + row * layout.row_in
            axes = canvas.axes(left_in, top_in, layout.camera_in, layout.camera_in * _CAMERA_SHAPE)
            draw_image(axes, shown.frame, name, data_root)
            draw_boxes_in_camera(axes, shown, shown.frame.image_from_lidar[CAMERAS.index(name)])


def _truth_title(matched: MatchedFrame) -> str:
    hidden = int(matched.sightings.hidden().sum())
    return f"ground truth: {len(matched.annotated)} objects, {hidden} of them hidden now"


def _prediction_title(name: str, matched: MatchedFrame) -> str:
    right = int((matched.match >= 0).sum())
    return f"{name}: {right} found, {len(matched.detected) - right} not there"
