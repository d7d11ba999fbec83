"""Sky and skyline: a picture all around, infinitely far away."""

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

WIDTH = 1440
HEIGHT = 240
TOP_DEG, BOTTOM_DEG = 50.0, -5.0


def paint_backdrop(rng: np.random.Generator, haze: NDArray[np.float64]) -> Image:
    """(HEIGHT, WIDTH, 3) RGB by global azimuth (columns, counter-clockwise from -π) and elevation (rows, top first).

    ``haze`` (3,) is the colour of the far distance.
    """
    elevation = np.linspace(TOP_DEG, BOTTOM_DEG, HEIGHT)
    zenith = np.array([92, 138, 200]) + rng.uniform(-18, 18, 3)
    blend = np.clip(elevation / 32, 0, 1)[:, None] ** 0.7
    sky = np.broadcast_to((haze * (1 - blend) + zenith * blend)[:, None], (HEIGHT, WIDTH, 3))
    cloud = sum(_waves(rng, cells) for cells in (5, 11, 23))
    cover = np.clip(cloud * 0.8 - rng.uniform(-0.3, 0.5), 0, 0.8)[..., None] * blend[:, None]
    picture = sky * (1 - cover) + 244 * cover
    azimuth = np.arange(WIDTH)
    for distance, height_deg in ((0.8, 9.0), (0.55, 6.0), (0.35, 4.0)):
        color = haze * distance + np.array([70, 84, 72]) * (1 - distance) + rng.uniform(-6, 6, 3)
        roofs = _roofs(rng, height_deg)
        picture[(elevation[:, None] < roofs[azimuth])] = color
    backdrop: Image = picture.astype(np.uint8)
    return backdrop


def columns_at(azimuth_rad: NDArray[np.float64]) -> NDArray[np.float32]:
    """Columns of the backdrop, float32, for global azimuths of any number of turns."""
    columns: NDArray[np.float32] = ((azimuth_rad / (2 * np.pi) + 0.5) % 1.0 * (WIDTH - 1)).astype(np.float32)
    return columns


def rows_at(elevation_rad: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rows of the backdrop, float32, for angles above the horizon."""
    rows = (TOP_DEG - np.degrees(elevation_rad)) / (TOP_DEG - BOTTOM_DEG) * (HEIGHT - 1)
    single: NDArray[np.float32] = rows.astype(np.float32)
    return single


def _waves(rng: np.random.Generator, cells: int) -> NDArray[np.float64]:
    knots = rng.normal(0, 0.5, (cells, 3 * cells))
    knots[:, -1] = knots[:, 0]
    return np.asarray(cv2.resize(knots, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), dtype=np.float64)


def _roofs(rng: np.random.Generator, height_deg: float) -> NDArray[np.float64]:
    """(WIDTH,) elevation of the skyline in degrees: houses, and trees between them."""
    roofs = np.zeros(WIDTH)
    column = 0
    while column < WIDTH:
        width = int(rng.integers(12, 60))
        height = height_deg * rng.uniform(0.25, 1.0)
        span = np.arange(min(width, WIDTH - column))
        is_tree = rng.uniform() < 0.5
        roofs[column + span] = height * np.sqrt(np.sin(np.pi * (span + 0.5) / width)) if is_tree else height
        column += width
    return roofs
