"""The ground of a scene, painted once from above: grass, yards, pavements, asphalt and its markings."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.curves import Curve
from scenes.synthetic.town import LANE_M, Road, Town

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

PIXEL_M = 0.25
MARGIN_M = 90.0
_SHIFT = 4
_WHITE, _YELLOW = (226, 226, 220), (222, 184, 74)


@dataclass(frozen=True, eq=False)
class GroundMap:
    """The ground seen from above.

    Attributes:
        sharp: (H, W, 3) RGB.
        blurred: the same, smoothed for the distance, where a pixel covers metres.
        map_from_global: (3, 3) homogeneous map pixels from global x, y in metres.
    """

    sharp: Image
    blurred: Image
    map_from_global: Array


def paint_ground(rng: np.random.Generator, town: Town, ego_xy_m: Array) -> GroundMap:
    """Paint all ground that a drive through ``ego_xy_m`` (F, 2) can see."""
    low, high = ego_xy_m.min(axis=0) - MARGIN_M, ego_xy_m.max(axis=0) + MARGIN_M
    width, height = np.ceil((high - low) / PIXEL_M).astype(int).tolist()
    map_from_global = np.array([[1, 0, -low[0]], [0, 1, -low[1]], [0, 0, PIXEL_M]]) / PIXEL_M
    image = np.full((height, width, 3), rng.integers((80, 100, 56), (104, 124, 74)), dtype=np.uint8)
    painter = _Painter(image, map_from_global)
    for beyond_m, color in ((13.5, rng.integers(128, 152, 3)), (4.3, rng.integers(160, 178, 3))):
        for road in town.roads:
            painter.band(road.curve, road.half_width_m + beyond_m, color.tolist())
    asphalt = int(rng.integers(78, 100))
    for road in town.roads:
        painter.band(road.curve, road.half_width_m + 0.2, [200, 198, 192])
    for road in town.roads:
        painter.band(road.curve, road.half_width_m, [asphalt, asphalt, asphalt + 3])
        _mark(painter, road)
    if len(town.roads) > 1:
        _junction(painter, town, [asphalt, asphalt, asphalt + 3])
    grain = _grain(rng, height, width)
    sharp = np.clip(image * grain[..., None], 0, 255).astype(np.uint8)
    blurred = np.asarray(cv2.GaussianBlur(sharp, (0, 0), 1.2 / PIXEL_M), dtype=np.uint8)
    return GroundMap(sharp, blurred, map_from_global)


class _Painter:
    """Draws in metres on a picture of the ground."""

    def __init__(self, image: Image, map_from_global: Array) -> None:
        self._image, self._map_from_global = image, map_from_global

    def band(self, curve: Curve, half_width_m: float, color: list[int]) -> None:
        left = curve.pose(curve.arc_m, half_width_m)[:, :2]
        right = curve.pose(curve.arc_m, -half_width_m)[:, :2]
        corners = np.stack([left[:-1], left[1:], right[1:], right[:-1]], axis=1)
        for quad in self._pixels(corners):
            cv2.fillConvexPoly(self._image, quad, color, shift=_SHIFT)

    def stripe(self, curve: Curve, left_m: float, span_m: tuple[float, float], look: tuple[float, list[int]]) -> None:
        """A line along the curve from one arc length to another; ``look`` is its width and colour."""
        width_m, color = look
        arc = np.arange(span_m[0], span_m[1] + 1e-6, min(1.0, span_m[1] - span_m[0]))
        outer = curve.pose(arc, left_m + width_m / 2)[:, :2]
        inner = curve.pose(arc, left_m - width_m / 2)[:, :2]
        corners = np.stack([outer[:-1], outer[1:], inner[1:], inner[:-1]], axis=1)
        for quad in self._pixels(corners):
            cv2.fillConvexPoly(self._image, quad, color, cv2.LINE_AA, _SHIFT)

    def _pixels(self, xy_m: Array) -> NDArray[np.int32]:
        pixels = xy_m @ self._map_from_global[:2, :2].T + self._map_from_global[:2, 2]
        fixed: NDArray[np.int32] = np.round(pixels * 2**_SHIFT).astype(np.int32)
        return fixed


def _mark(painter: _Painter, road: Road) -> None:
    """Centre line, dashed lane lines, kerb lane line."""
    first, last = float(road.curve.arc_m[0]), float(road.curve.arc_m[-1])
    for left in (-0.14, 0.14):
        painter.stripe(road.curve, left, (first, last), (0.14, list(_YELLOW)))
    for side in (-1, 1):
        painter.stripe(road.curve, side * road.lanes_per_side * LANE_M, (first, last), (0.14, list(_WHITE)))
        for lane in range(1, road.lanes_per_side):
            for dash in np.arange(first, last - 4, 7.0):
                painter.stripe(road.curve, side * lane * LANE_M, (float(dash), float(dash) + 3), (0.16, list(_WHITE)))


def _junction(painter: _Painter, town: Town, asphalt: list[int]) -> None:
    """Bare asphalt where two roads cross, with a zebra crossing on each arm."""
    for road, other in zip(town.roads, town.roads[::-1], strict=True):
        assert road.crossing_m is not None
        edge = other.half_width_m
        span = (road.crossing_m - edge, road.crossing_m + edge)
        painter.stripe(road.curve, 0.0, span, (2 * road.half_width_m, asphalt))
        for begin in (span[0] - 4.0, span[1] + 1.0):
            painter.stripe(road.curve, 0.0, (begin, begin + 3.0), (2 * road.half_width_m, asphalt))
            for left in np.arange(0.5 - road.half_width_m, road.half_width_m - 0.3, 1.1):
                painter.stripe(road.curve, float(left), (begin, begin + 3.0), (0.55, list(_WHITE)))


def _grain(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Uneven brightness around 1: grains and patches."""
    grain = np.ones((height, width), dtype=np.float32)
    for coarseness, strength in ((2, 0.07), (24, 0.08)):
        small = rng.normal(0, strength, (height // coarseness + 2, width // coarseness + 2)).astype(np.float32)
        grain += cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return grain
