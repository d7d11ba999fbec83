"""A scene as an animated GIF."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_COLORS = 256


def gif_frame(pixels: NDArray[np.uint8], width: int) -> Image.Image:
    """A picture (rows, cols, 3) made this wide, with a palette of its own; kept this way it takes little memory."""
    height = round(pixels.shape[0] * width / pixels.shape[1])
    small = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
    return small.quantize(_COLORS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def write_gif(path: Path, frames: Sequence[Image.Image], seconds_a_frame: float) -> None:
    """Write an animation that repeats for ever.

    Args:
        path: the GIF; its folder exists.
        frames: at least one, all of one size, as ``gif_frame`` makes them.
        seconds_a_frame: how long each is shown.
    """
    first, *rest = frames
    first.save(path, save_all=True, append_images=rest, duration=round(1000 * seconds_a_frame), loop=0, optimize=False)
