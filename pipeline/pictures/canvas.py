"""A figure laid out in inches: placing axes by hand is exact, and much faster than a layout engine."""

import io
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray


class Canvas:
    """A white figure of a given size; places are inches from its top left corner."""

    def __init__(self, width_in: float, height_in: float) -> None:
        self.width_in, self.height_in = width_in, height_in
        self.figure = Figure(figsize=(width_in, height_in), facecolor="white")
        self._agg = FigureCanvasAgg(self.figure)

    def axes(self, left_in: float, top_in: float, width_in: float, height_in: float) -> Axes:
        """New axes whose frame has exactly this place; ticks and labels stand outside of it."""
        bottom_in = self.height_in - top_in - height_in
        place = (
            left_in / self.width_in,
            bottom_in / self.height_in,
            width_in / self.width_in,
            height_in / self.height_in,
        )
        return self.figure.add_axes(place)

    def text(self, left_in: float, top_in: float, words: str, size_pt: float, *, bold: bool = False) -> None:
        """A line of text that starts here, centred on this height."""
        weight = "bold" if bold else "normal"
        x, y = left_in / self.width_in, 1 - top_in / self.height_in
        self.figure.text(x, y, words, fontsize=size_pt, fontweight=weight, va="center")

    def pixels(self, dpi: float) -> NDArray[np.uint8]:
        """The picture, (height, width, 3) uint8."""
        self.figure.set_dpi(dpi)
        self._agg.draw()  # type: ignore[no-untyped-call]  # matplotlib leaves the two untyped
        drawn = np.asarray(self._agg.buffer_rgba())  # type: ignore[no-untyped-call]
        return drawn[..., :3].copy()

    def save(self, path: Path, dpi: float) -> None:
        """Write a PNG; its folder is made."""
        content = io.BytesIO()
        self.figure.savefig(content, dpi=dpi, format="png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.getvalue())
