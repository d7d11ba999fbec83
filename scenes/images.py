"""Camera images: checked decoding, and the published preprocessing.

Published order: decode, normalise at full resolution, resize the *normalised float* image bilinearly (OpenCV), pad
with zeros at the bottom and right. Normalising looks each 8-bit value up in a table of 256 floats per channel: the same
floats as the published subtract-and-multiply, in one pass over the image.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from scenes.confined_paths import confined_path
from scenes.photometric import PhotometricDistortion, distorted
from schemas.errors import DataError
from schemas.frames import CAMERAS, CameraInputs, Frame
from schemas.preprocessing import Preprocessing

_FORMATS = ("JPEG", "PNG")  # PIL knows formats that start other programs
_FIX = "Restore the file from the nuScenes download."


def load_image(data_root: Path, relative_path: str, size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode one image, and be sure that it is whole.

    Args:
        data_root: the nuScenes directory.
        relative_path: as the tables give it.
        size_wh: width and height in pixels that the tables state.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        DataError: the file is missing, truncated, no image, of another size, not RGB, or outside the data root.
    """
    path = confined_path(data_root, relative_path)
    if not path.is_file():
        raise DataError(f"the image {path} is missing. {_FIX}")
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise RuntimeError("PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set: half an image would pass as a whole one")
    try:
        with Image.open(path, formats=_FORMATS) as image:
            found = (image.mode, image.size)
            if found != ("RGB", size_wh):
                raise DataError(
                    f"{path}: expected an RGB image of {size_wh[0]}x{size_wh[1]} pixels as the tables state, "
                    f"got mode {image.mode} of {image.size[0]}x{image.size[1]}. {_FIX}"
                )
            image.load()
            return np.asarray(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: expected a whole image, but decoding failed: {error}. {_FIX}") from error


def load_inputs(
    frame: Frame,
    data_root: Path,
    preprocessing: Preprocessing,
    distortions: Sequence[PhotometricDistortion] | None = None,
) -> CameraInputs:
    """Decode and preprocess the six images of a frame. Safe to call from many threads.

    Args:
        frame: the keyframe; all its cameras have one image size.
        data_root: the nuScenes directory.
        preprocessing: of the detector that will see the images.
        distortions: what is done to each camera's image before it is normalised, in ``CAMERAS`` order; for training.

    Raises:
        DataError: an image is not what the tables say; the message names sample, camera and file.
    """
    height, width = _image_hw(frame)
    images = np.zeros((len(CAMERAS), 3, *preprocessing.padded_hw(height, width)), dtype=np.float32)
    for number, (camera, path) in enumerate(zip(CAMERAS, frame.camera_paths, strict=True)):
        try:
            pixels = load_image(data_root, path, (width, height))
        except DataError as error:
            raise DataError(f"sample {frame.sample_token} ({frame.scene_name}), {camera}: {error}") from error
        if distortions is None:
            _preprocess(pixels, preprocessing, images[number])
        else:
            _preprocess_floats(distorted(pixels, distortions[number]), preprocessing, images[number])
    return CameraInputs(frame, images, preprocessing.scale_matrix() @ frame.image_from_lidar)


def _image_hw(frame: Frame) -> tuple[int, int]:
    sizes = sorted({(width, height) for width, height in frame.camera_size_wh.tolist()})
    if len(sizes) != 1:
        raise DataError(
            f"sample {frame.sample_token} ({frame.scene_name}): all six cameras must have one image size, "
            f"got {sizes} in sample_data.json. Restore the table from the nuScenes download."
        )
    width, height = sizes[0]
    return height, width


def _preprocess(pixels: NDArray[np.uint8], preprocessing: Preprocessing, target: NDArray[np.float32]) -> None:
    """Normalise and resize RGB pixels (H, W, 3) into the top left of ``target`` (3, H', W'), in the network's order.

    OpenCV writes into ``target`` in place: fresh memory would cost more than the arithmetic.
    """
    rows, cols = preprocessing.resized_hw(*pixels.shape[:2])
    ordered = pixels if preprocessing.color_order == "rgb" else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    table = _normalisation(preprocessing.mean, preprocessing.std)
    planes = [plane[:rows, :cols] for plane in target]
    if pixels.shape[:2] == (rows, cols):
        for channel, plane in enumerate(planes):
            cv2.LUT(cv2.extractChannel(ordered, channel), table[channel], dst=plane)
    else:  # OpenCV rounds one channel differently from three interleaved ones, which is what was published
        normalised = cv2.LUT(ordered, np.ascontiguousarray(table.T)[None])
        resized = cv2.resize(normalised, (cols, rows), interpolation=cv2.INTER_LINEAR)
        for channel, plane in enumerate(planes):
            cv2.extractChannel(resized, channel, dst=plane)


def _preprocess_floats(pixels: NDArray[np.float32], preprocessing: Preprocessing, target: NDArray[np.float32]) -> None:
    """As ``_preprocess``, of pixels of any value, which are used up: no table can hold those."""
    rows, cols = preprocessing.resized_hw(*pixels.shape[:2])
    from_red = slice(None) if preprocessing.color_order == "rgb" else slice(None, None, -1)
    cv2.subtract(pixels, np.array([preprocessing.mean[from_red]], dtype=np.float64), dst=pixels)
    cv2.multiply(pixels, 1 / np.array([preprocessing.std[from_red]], dtype=np.float64), dst=pixels)
    if pixels.shape[:2] != (rows, cols):
        pixels = np.asarray(cv2.resize(pixels, (cols, rows), interpolation=cv2.INTER_LINEAR), dtype=np.float32)
    cv2.split(pixels, [plane[:rows, :cols] for plane in target[from_red]])


@lru_cache(maxsize=8)
def _normalisation(mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    """Normalised value of every 8-bit value, (channel, 256) float32.

    The subtraction is done in float32 and the multiplication by 1/std in float64, as OpenCV does for float images.
    """
    centred = np.arange(256, dtype=np.float32) - np.array(mean, dtype=np.float32)[:, None]
    return (centred.astype(np.float64) * (1 / np.array(std))[:, None]).astype(np.float32)
