"""A teacher seen through a coarser BEV grid: a quarter of the disk, or less, for those who train smaller students.

Features over the ground (dims ``y, x, ...``) are averaged by area, exactly: a coarse cell that covers two and a half
fine ones takes the half cell at half weight. Objects and other features pass as they are, and so does the teacher's own
history, which stays at full resolution.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.teacher_stage.around_teacher import AroundTeacher
from pipeline.teacher_stage.network import LIVE_BEV, DecodesBev, TeacherNetwork
from schemas.bev_grid import BevGrid
from schemas.boxes import Boxes
from schemas.errors import RecipeError
from schemas.features import FeatureSpec
from schemas.frames import CameraInputs
from train.adapters import resize_bev

_GROUND = ("y", "x")


def averaged_to(network: TeacherNetwork, cells: int) -> TeacherNetwork:
    """The teacher with its BEV features averaged to ``cells`` rows; columns keep the grid's proportions.

    It is a ``DecodesBev`` exactly when ``network`` is one: it then decodes a map that was brought back to the teacher's
    own grid by bilinear interpolation, which tells what the reduction costs in boxes.

    Raises:
        RecipeError: fewer than one row, more than the teacher has, or no whole number of columns.
    """
    grid = reduced_grid(network.grid, cells)
    return _DecodingReduced(network, network, grid) if isinstance(network, DecodesBev) else _Reduced(network, grid)


def reduced_grid(grid: BevGrid, cells: int) -> BevGrid:
    """The same ground in ``cells`` rows of cells of the same proportions.

    Raises:
        RecipeError: as ``averaged_to``.
    """
    where = f"--bev-grid {cells}: the teacher's BEV grid has {grid.rows} rows and {grid.cols} columns"
    if not 1 <= cells <= grid.rows:
        raise RecipeError(f"{where}; choose from 1 to {grid.rows} rows. Averaging can only make it coarser.")
    if cells * grid.cols % grid.rows != 0:
        raise RecipeError(
            f"{where}; {cells} rows would need {cells * grid.cols / grid.rows:g} columns to keep the cells' shape. "
            f"Choose rows that are a multiple of {_smallest_rows(grid)}."
        )
    return grid.model_copy(update={"rows": cells, "cols": cells * grid.cols // grid.rows})


def reduced_spec(spec: FeatureSpec, teacher_grid: BevGrid, grid: BevGrid) -> FeatureSpec:
    """The spec of a feature after averaging; unchanged for a feature that does not lie on the ground."""
    if not _lies_on_ground(spec, teacher_grid):
        return spec
    note = f"Averaged by area from {teacher_grid.rows}×{teacher_grid.cols} to {grid.rows}×{grid.cols} cells."
    return spec.model_copy(
        update={"shape": (*grid.shape, *spec.shape[2:]), "description": f"{spec.description} {note}"}
    )


class _Reduced(AroundTeacher):
    """A ``TeacherNetwork`` around another one."""

    def __init__(self, network: TeacherNetwork, grid: BevGrid) -> None:
        super().__init__(network)
        self._grid = grid
        self._on_ground = [spec for spec in network.feature_specs() if _lies_on_ground(spec, network.grid)]

    @property
    def grid(self) -> BevGrid:
        """The coarser one."""
        return self._grid

    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        """The teacher's, those on the ground in coarser cells."""
        return tuple(reduced_spec(spec, self._network.grid, self._grid) for spec in self._network.feature_specs())

    def features(self, inputs: CameraInputs, previous: Any) -> tuple[Mapping[str, Tensor], Any]:
        """One keyframe; its state is the teacher's own."""
        found, state = self._network.features(inputs, previous)
        return self._reduced(found), state

    def _reduced(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        coarse = dict(found)
        for spec in self._on_ground:
            if spec.name in coarse and tuple(coarse[spec.name].shape) == spec.shape:  # else the quantiser refuses it
                coarse[spec.name] = self._average(coarse[spec.name]) * self._unit_factor(spec)
        return coarse

    def _average(self, values: Tensor) -> Tensor:
        with torch.autocast(values.device.type, enabled=False):
            planes = values.float().flatten(2).movedim(-1, 0)[None]
            averaged = resize_bev(planes, self._grid.shape)[0].movedim(0, -1)
        return averaged.reshape(*self._grid.shape, *values.shape[2:])

    def _unit_factor(self, spec: FeatureSpec) -> float:
        """An offset counted in BEV cells counts in larger ones now."""
        return self._grid.rows / self._network.grid.rows if spec.units.startswith("BEV cells") else 1.0


class _DecodingReduced(_Reduced):
    """A ``DecodesBev`` around another one."""

    def __init__(self, network: TeacherNetwork, decoder: DecodesBev, grid: BevGrid) -> None:
        super().__init__(network, grid)
        self._decoder = decoder

    def features(self, inputs: CameraInputs, previous: Any) -> tuple[Mapping[str, Tensor], Any]:
        """One keyframe, and beside the coarse map the one that the teacher decodes itself."""
        found, state = self._network.features(inputs, previous)
        coarse = self._reduced(found)
        if "bev" in found:
            coarse[LIVE_BEV] = found["bev"]
        return coarse, state

    def boxes_from_bev(self, bev: Float[Tensor, "row col channel"]) -> Boxes:
        """What the teacher sees in a coarse map, interpolated to its own grid, or in one of that grid."""
        if tuple(bev.shape[:2]) == self._network.grid.shape:
            return self._decoder.boxes_from_bev(bev)
        fine = resize_bev(bev.movedim(-1, 0)[None], self._network.grid.shape)
        return self._decoder.boxes_from_bev(fine[0].movedim(0, -1).contiguous())


def _lies_on_ground(spec: FeatureSpec, grid: BevGrid) -> bool:
    return spec.dims[:2] == _GROUND and spec.shape[:2] == grid.shape


def _smallest_rows(grid: BevGrid) -> int:
    return next(rows for rows in range(1, grid.rows + 1) if rows * grid.cols % grid.rows == 0)
