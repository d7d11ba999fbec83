"""The six camera images with boxes drawn into them."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from PIL import Image

from pipeline.pictures.box_drawing import ANNOTATED, DETECTED, draw_in_camera
from pipeline.pictures.frame_contents import FrameContents
from scenes.images import load_image
from schemas.frames import CAMERAS, Frame

CAMERA_LAYOUT = (
    ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT"),
    ("CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT"),
)
"""Rear cameras from right to left, so that neighbours in the picture overlap in the world when seen as a panorama."""

_SHOWN_WIDTH_PX = 800


def draw_camera(axes: Axes, contents: FrameContents, camera: str, data_root: Path) -> None:
    """One image with annotated and detected boxes; axes in original pixels.

    Raises:
        DataError: the image cannot be read.
    """
    draw_image(axes, contents.frame, camera, data_root)
    image_from_lidar = contents.frame.image_from_lidar[CAMERAS.index(camera)]
    for boxes, style in ((contents.annotated, ANNOTATED), (contents.detected, DETECTED)):
        if boxes is not None:
            draw_in_camera(axes, boxes, image_from_lidar, style)


def draw_image(axes: Axes, frame: Frame, camera: str, data_root: Path) -> None:
    """One image under the name of its camera; axes in original pixels.

    Raises:
        DataError: the image cannot be read.
    """
    number = CAMERAS.index(camera)
    width, height = frame.camera_size_wh[number].tolist()
    image = _thumbnail(load_image(data_root, frame.camera_paths[number], (width, height)))
    axes.imshow(image, extent=(0, width, height, 0), aspect="auto", interpolation="antialiased")
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axes.set_title(camera, fontsize=7.5, pad=2.5)


def _thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """At most as wide as a picture shows it: matplotlib is slow with large images."""
    height, width = pixels.shape[:2]
    if width <= _SHOWN_WIDTH_PX:
        return pixels
    size = (_SHOWN_WIDTH_PX, round(height * _SHOWN_WIDTH_PX / width))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
