"""Pictures of a frame: its six cameras with boxes, and its BEV feature as colours under the boxes seen from above."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import HashableList
from numpy.typing import NDArray

from scenes.geometry import box_edges_in_image
from scenes.images import load_image
from schemas.bev_grid import BevGrid
from schemas.boxes import CLASS_NAMES, Boxes, box_corners_m
from schemas.frames import CAMERAS, Frame

CAMERA_LAYOUT = (
    ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT"),
    ("CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT"),
)
"""Rear cameras from right to left, so that neighbours in the picture overlap in the world when seen as a panorama."""

CLASS_COLORS = {name: colormaps["tab10"](number)[:3] for number, name in enumerate(CLASS_NAMES)}


@dataclass(frozen=True, eq=False)
class BevPicture:
    """A map of colours and where it lies.

    Attributes:
        rgb: (rows, cols, 3) float64 in [0, 1].
        grid: its axes.
    """

    rgb: NDArray[np.float64]
    grid: BevGrid


def bev_as_rgb(bev: NDArray[np.float32]) -> NDArray[np.float64]:
    """The three main directions of a BEV feature as red, green and blue.

    Args:
        bev: (rows, cols, channel) float32, finite.

    Returns:
        (rows, cols, 3) float64 in [0, 1]: principal components of the cells, each stretched between its 1st and 99th
        percentile. Their signs are fixed by their largest loading, so that neighbouring frames keep their colours.
    """
    cells = bev.reshape(-1, bev.shape[-1]).astype(np.float64)
    cells -= cells.mean(axis=0)
    _, directions = np.linalg.eigh(cells.T @ cells)
    main = directions[:, ::-1][:, :3]
    main *= np.sign(main[np.abs(main).argmax(axis=0), np.arange(main.shape[1])])
    components = cells @ main
    low, high = np.percentile(components, (1, 99), axis=0)
    rgb = np.clip((components - low) / np.maximum(high - low, 1e-12), 0, 1)
    padded: NDArray[np.float64] = np.pad(rgb, ((0, 0), (0, 3 - rgb.shape[1])))
    return padded.reshape(*bev.shape[:2], 3)


def draw_frame(path: Path, frame: Frame, data_root: Path, boxes: Boxes, bev: BevPicture | None = None) -> None:
    """Write one PNG: six cameras with projected boxes, and the BEV with the same boxes from above.

    Args:
        path: the PNG to write.
        frame: the keyframe.
        data_root: its nuScenes directory.
        boxes: annotations or detections, LiDAR frame.
        bev: colours under the boxes; without it the boxes stand on white.

    Raises:
        DataError: an image cannot be read.
    """
    figure = Figure(figsize=(18, 6.4), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    layout: list[HashableList[str]] = [[*row, "BEV"] for row in CAMERA_LAYOUT]
    axes = figure.subplot_mosaic(layout, width_ratios=[16, 16, 16, 21])
    for name, number in ((name, CAMERAS.index(name)) for name in CAMERAS):
        _draw_camera(axes[name], frame, number, data_root, boxes)
    draw_bev(axes["BEV"], boxes, bev)
    seen = sorted(set(boxes.labels.tolist()))
    handles = [Line2D([], [], color=CLASS_COLORS[CLASS_NAMES[label]], label=CLASS_NAMES[label]) for label in seen]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9, frameon=False)
    figure.suptitle(f"{frame.scene_name}, frame {frame.step}", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def draw_bev(axes: Axes, boxes: Boxes, bev: BevPicture | None) -> None:
    """Draw boxes from above, forward upwards, over the colours of a BEV feature."""
    color = "black"
    if bev is not None:
        x_min, y_min, _, x_max, y_max, _ = bev.grid.extent_m
        axes.imshow(bev.rgb, origin="lower", extent=(x_min, x_max, y_min, y_max), interpolation="nearest")
        axes.set(xlim=(x_min, x_max), ylim=(y_min, y_max))
        color = "white"
    corners = box_corners_m(boxes)[:, :4, :2]
    outline = [np.vstack([box, box[:1]]) for box in corners]
    colors = [CLASS_COLORS[CLASS_NAMES[label]] for label in boxes.labels]
    axes.add_collection(LineCollection(outline, colors=color, linewidths=2.2))
    axes.add_collection(LineCollection(outline, colors=colors, linewidths=1.2))
    noses = [(box.mean(axis=0), box[:2].mean(axis=0)) for box in corners]
    axes.add_collection(LineCollection(noses, colors=colors, linewidths=1.2))
    axes.plot(0, 0, marker="^", color=color, markersize=7)
    axes.set(aspect="equal", xlabel="x, right (m)", ylabel="y, forward (m)")


def _draw_camera(axes: Axes, frame: Frame, number: int, data_root: Path, boxes: Boxes) -> None:
    width, height = frame.camera_size_wh[number].tolist()
    image = load_image(data_root, frame.camera_paths[number], (width, height))
    axes.imshow(image)
    segments, owner = box_edges_in_image(boxes, frame.image_from_lidar[number])
    colors = [CLASS_COLORS[CLASS_NAMES[boxes.labels[box]]] for box in owner]
    axes.add_collection(LineCollection(list(segments), colors=colors, linewidths=1.0))
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axes.set_title(CAMERAS[number], fontsize=9)
