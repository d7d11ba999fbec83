"""Bring student and teacher features to one size: grids by area, channels by a 1×1 convolution, detail by ``Restore``.

BEV grids of one extent differ only in their cell size, so resizing is arithmetic on cells: a coarse cell is the mean
of the area it covers, a fine cell is interpolated between coarse centres. Both keep every cell where it is in metres.
"""

from math import log2

import torch
from jaxtyping import Float
from torch import Tensor, nn

from schemas.bev_grid import BevGrid
from schemas.errors import RecipeError


def require_equal_extents(student: BevGrid, teacher: BevGrid) -> None:
    """Refuse to compare cells of maps that cover different ground.

    Raises:
        RecipeError: the two extents differ.
    """
    if student.extent_m != teacher.extent_m:
        raise RecipeError(
            f"student and teacher see different ground: the student's BEV covers {student.extent_m} m "
            f"(x_min, y_min, z_min, x_max, y_max, z_max), the cached teacher's {teacher.extent_m} m. "
            "Give the student the teacher's with --set student.detector.grid.extent_m=[...], or use another cache."
        )


def resize_bev(
    bev: Float[Tensor, "batch channel rows cols"], shape: tuple[int, int]
) -> Float[Tensor, "batch channel new_rows new_cols"]:
    """The same map on a grid of another cell size over the same extent.

    Axis by axis: exact area average where cells grow, linear interpolation between cell centres where they shrink.
    """
    rows, cols = bev.shape[-2:]
    if shape[0] != rows:
        bev = torch.einsum("nr,bcrx->bcnx", _axis_weights(rows, shape[0], bev), bev)
    if shape[1] != cols:
        bev = torch.einsum("nx,bcrx->bcrn", _axis_weights(cols, shape[1], bev), bev)
    return bev


def _axis_weights(old: int, new: int, like: Tensor) -> Float[Tensor, "new old"]:
    """Weight of each old cell in each new one; every row sums to one."""
    if new < old:
        edges = torch.arange(new + 1, dtype=torch.float64) * old / new
        cells = torch.arange(old, dtype=torch.float64)
        overlap = torch.minimum(edges[1:, None], cells + 1) - torch.maximum(edges[:-1, None], cells)
        weights = overlap.clamp(min=0) * new / old
    else:
        centres = ((torch.arange(new, dtype=torch.float64) + 0.5) * old / new - 0.5).clamp(0, old - 1)
        weights = (1 - (centres[:, None] - torch.arange(old, dtype=torch.float64)).abs()).clamp(min=0)
    return weights.to(like)


class ChannelAdapter(nn.Module):
    """Student channels to teacher channels by a 1×1 convolution; FitNets' regressor."""

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(student_channels, teacher_channels, kernel_size=1)

    def forward(
        self, bev: Float[Tensor, "batch student_channel rows cols"]
    ) -> Float[Tensor, "batch teacher_channel rows cols"]:
        """Project each cell."""
        projected: Tensor = self.project(bev)
        return projected


class Restore(nn.Module):
    """A coarse student BEV at the teacher's size (FD3D's released restore layers).

    One 4×4 stride-2 transposed convolution, batch norm and ReLU per doubling, then a 3×3 convolution; the first
    transposed convolution changes the channels. Released for grids that differ by a power of two. For other ratios we
    double as often as fits and resize the rest by area before the 3×3 convolution. Nothing at all where grid and
    channels already agree, as released.

    Args:
        student: ``(channels, rows, cols)`` of the student's BEV.
        teacher: the same of the teacher's.
    """

    def __init__(self, student: tuple[int, int, int], teacher: tuple[int, int, int]) -> None:
        super().__init__()
        channels, *grid = student
        ratio = min(wanted / have for wanted, have in zip(teacher[1:], grid, strict=True))
        layers: list[nn.Module] = []
        for _ in range(max(0, int(log2(ratio)))):
            layers += [
                nn.ConvTranspose2d(channels, teacher[0], kernel_size=4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(teacher[0]),
                nn.ReLU(inplace=True),
            ]
            channels = teacher[0]
        self.doublings = nn.Sequential(*layers)
        self.shape = (teacher[1], teacher[2])
        self.last = None if student == teacher else nn.Conv2d(channels, teacher[0], kernel_size=3, padding=1)

    def forward(
        self, bev: Float[Tensor, "batch student_channel rows cols"]
    ) -> Float[Tensor, "batch teacher_channel teacher_rows teacher_cols"]:
        """Enlarge the map."""
        bev = resize_bev(self.doublings(bev), self.shape)
        return bev if self.last is None else self.last(bev)
