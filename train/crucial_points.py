"""Nine places that say where a box is and how it lies, and what BEV maps hold there.

The places are the box's four corners seen from above, its centre and the middles of its four sides, in this order;
features are read there by bilinear interpolation.

Source: UniDistill (Zhou et al., CVPR 2023), read in its released code. As there a map is zero beyond its edge, so
within half a cell of the edge the reading fades.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from schemas.bev_grid import BevGrid
from schemas.boxes import Boxes, box_corners_m

POINTS = 9


@dataclass(frozen=True, eq=False)
class CrucialPoints:
    """Places of a batch of boxes; samples with fewer boxes than others are filled up.

    Attributes:
        places: (x, y), -1 and 1 at the edges of the map.
        counts: False for what only fills up, and for places that a loss shall not hear of.
    """

    places: Float32[Tensor, "batch box 9 2"]
    counts: Bool[Tensor, "batch box 9"]

    def read(self, bev: Float32[Tensor, "batch channel rows cols"]) -> Float32[Tensor, "batch box 9 channel"]:
        """Features at the places, on a map of any cell size, zero beyond it."""
        read = functional.grid_sample(bev, self.places, mode="bilinear", padding_mode="zeros", align_corners=False)
        return read.permute(0, 2, 3, 1)

    def to(self, device: torch.device) -> "CrucialPoints":
        """The same points on another device."""
        return CrucialPoints(self.places.to(device), self.counts.to(device))


def crucial_points(boxes: Sequence[Boxes], grid: BevGrid, *, legacy_swap: bool) -> CrucialPoints:
    """The points of every box, on the host; those outside the extent do not count.

    Args:
        boxes: one set per sample.
        grid: whose extent the places are fractions of.
        legacy_swap: as the release reads them: x and y exchanged, that is mirrored at the map's diagonal, and all nine
            points of a box count, wherever they lie.
    """
    most = max([1, *(len(one) for one in boxes)])
    places = np.zeros((len(boxes), most, POINTS, 2))
    counts = np.zeros((len(boxes), most, POINTS), dtype=np.bool_)
    lower, upper = np.array(grid.extent_m[:2]), np.array(grid.extent_m[3:5])
    for sample, one in enumerate(boxes):
        own = 2 * (nine_points_m(one) - lower) / (upper - lower) - 1
        places[sample, : len(one)] = own[..., ::-1] if legacy_swap else own
        counts[sample, : len(one)] = legacy_swap or (np.abs(own) <= 1).all(axis=-1)
    return CrucialPoints(torch.from_numpy(places).float(), torch.from_numpy(counts))


def nine_points_m(boxes: Boxes) -> NDArray[np.float64]:
    """(N, 9, 2) metres, LiDAR frame: corners from front-left on, seen from above clockwise, centre, sides likewise."""
    corners = box_corners_m(boxes)[:, :4, :2]
    sides = (corners + np.roll(corners, -1, axis=1)) / 2
    return np.concatenate([corners, boxes.center_m[:, None, :2], sides], axis=1)
