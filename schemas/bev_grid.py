"""The bird's-eye-view grid: its axes are drawn here, once, and nowhere else.

LiDAR frame, seen from above (x right, y forward, z towards the reader)

       y (forward)                      cols ─▶ x
       ▲                          row R-1 ┌───┬───┬───┐  y_max
       │                                  ├───┼───┼───┤
       │     ego                          ├───┼───┼───┤
       └────────▶ x (right)         row 0 └───┴───┴───┘  y_min
                                        x_min       x_max
                                         col 0 … col C-1

cell (row, col) has its centre at  x = x_min + (col + 0.5) · cell_x,   y = y_min + (row + 0.5) · cell_y
a flattened map is row-major:      index = row · cols + col
so row 0 is the rear of the car, and a picture must flip the rows to show forward upwards.
"""

from pydantic import BaseModel, ConfigDict, model_validator


class BevGrid(BaseModel):
    """A regular grid over the LiDAR frame's x-y plane, with the height range that boxes are normalised by.

    Attributes:
        rows: cells along y (forward).
        cols: cells along x (right).
        extent_m: ``(x_min, y_min, z_min, x_max, y_max, z_max)`` in metres, LiDAR frame.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    cols: int
    extent_m: tuple[float, float, float, float, float, float]

    @model_validator(mode="after")
    def _check(self) -> "BevGrid":
        x_min, y_min, z_min, x_max, y_max, z_max = self.extent_m
        if self.rows < 1 or self.cols < 1 or not (x_min < x_max and y_min < y_max and z_min < z_max):
            raise ValueError(f"a BEV grid needs rows, cols >= 1 and min < max on each axis, got {self!r}")
        return self

    @property
    def shape(self) -> tuple[int, int]:
        """``(rows, cols)``."""
        return self.rows, self.cols

    @property
    def size_m(self) -> tuple[float, float, float]:
        """Extent along x, y, z in metres."""
        x_min, y_min, z_min, x_max, y_max, z_max = self.extent_m
        return x_max - x_min, y_max - y_min, z_max - z_min

    @property
    def cell_m(self) -> tuple[float, float]:
        """Cell size along x and y in metres."""
        size_x, size_y, _ = self.size_m
        return size_x / self.cols, size_y / self.rows
