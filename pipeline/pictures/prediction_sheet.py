"""Cameras with predicted and annotated boxes, and maps of what one or several detectors predict beside ground truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.matching import MatchedFrame
from pipeline.pictures.cameras import CAMERA_LAYOUT, draw_image
from pipeline.pictures.canvas import Canvas
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
_DPI = 110
_KEPT = "Shown of each class: the best detections of the split, as many as it has annotations."
_LEGEND = {"facecolor": "0.62", "edgecolor": "none", "fancybox": False, "fontsize": 7.5, "borderaxespad": 0.0}


@dataclass(frozen=True, eq=False)
class Prediction:
    """What one detector says about a frame.

    Attributes:
        name: what its map is called.
        matched: its kept detections.
    """

    name: str
    matched: MatchedFrame


def draw_prediction_sheet(predictions: Sequence[Prediction], grid: BevGrid, data_root: Path, heading: str) -> Canvas:
    """A picture of one frame: six cameras, and under them ground truth and each detector's predictions.

    Args:
        predictions: of one frame by one or more detectors; the last one's boxes are in the cameras, too.
        grid: gives the extent of the maps.
        data_root: where the images are.
        heading: above the picture.

    Raises:
        DataError: an image cannot be read.
    """
    maps = 1 + len(predictions)
    width_in = 0.5 + maps * _MAP_IN + (maps - 1) * _BETWEEN_MAPS_IN + 0.15
    camera_in = (width_in - 0.2 - 2 * _BETWEEN_CAMERAS_IN) / 3
    row_in = camera_in * _CAMERA_SHAPE + 0.24
    maps_top_in = _TOP_IN + len(CAMERA_LAYOUT) * row_in + 0.22
    canvas = Canvas(width_in, maps_top_in + _MAP_IN + 0.85)
    last = predictions[-1]
    frame = last.matched.frame
    canvas.text(0.12, 0.2, heading, 11.0, bold=True)
    canvas.text(0.12, 0.43, f"{frame.scene_name}, frame {frame.step}, sample {frame.sample_token}. {_KEPT}", 8.0)
    _draw_cameras(canvas, last, data_root, (camera_in, row_in))
    if maps > 2:
        canvas.text(width_in - 3.2, 0.43, f"Cameras: with the boxes of {last.name}", 8.0)
    for number in range(maps):
        left_in = 0.5 + number * (_MAP_IN + _BETWEEN_MAPS_IN)
        axes = canvas.axes(left_in, maps_top_in, _MAP_IN, _MAP_IN)
        if number == 0:
            draw_ground_truth(axes, [prediction.matched for prediction in predictions], grid)
            axes.set_title(_truth_title(last.matched), fontsize=8, pad=3)
        else:
            draw_predictions(axes, predictions[number - 1].matched, grid)
            axes.set_title(_prediction_title(predictions[number - 1]), fontsize=8, pad=3)
    handles = legend_handles([prediction.name for prediction in predictions])
    anchor = (0.5, 0.08 / canvas.height_in)
    canvas.figure.legend(
        handles=handles, loc="lower center", bbox_to_anchor=anchor, ncols=-(-len(handles) // 2), **_LEGEND
    )
    return canvas


def save_sheet(canvas: Canvas, path: Path) -> None:
    """Write the picture as a PNG; its folder is made."""
    canvas.save(path, _DPI)


def _draw_cameras(canvas: Canvas, shown: Prediction, data_root: Path, size_in: tuple[float, float]) -> None:
    camera_in, row_in = size_in
    frame = shown.matched.frame
    for row, names in enumerate(CAMERA_LAYOUT):
        for column, name in enumerate(names):
            left_in = 0.1 + column * (camera_in + _BETWEEN_CAMERAS_IN)
            axes = canvas.axes(left_in, _TOP_IN + row * row_in, camera_in, camera_in * _CAMERA_SHAPE)
            draw_image(axes, frame, name, data_root)
            draw_boxes_in_camera(axes, shown.matched, frame.image_from_lidar[CAMERAS.index(name)])


def _truth_title(matched: MatchedFrame) -> str:
    hidden = int(matched.sightings.hidden().sum())
    return f"ground truth: {len(matched.annotated)} objects, {hidden} of them hidden now"


def _prediction_title(prediction: Prediction) -> str:
    right = int((prediction.matched.match >= 0).sum())
    return f"{prediction.name}: {right} found, {len(prediction.matched.detected) - right} not there"
