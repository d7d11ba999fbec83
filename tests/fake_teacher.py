"""A teacher that computes next to nothing, for tests of what is done with one."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from schemas.bev_grid import BevGrid
from schemas.boxes import Boxes
from schemas.features import FeatureSpec
from schemas.frames import CameraInputs
from schemas.preprocessing import Preprocessing

EXTENT_M = (-32.0, -32.0, -2.5, 32.0, 32.0, 1.5)


class FakeTeacher:
    """Gives the features it was made with; its state counts the frames.

    Attributes:
        given: what ``features`` returns.
    """

    preprocessing = Preprocessing(color_order="rgb", mean=(124, 116, 104), std=(58, 57, 57))
    class_names = ("car", "bus")

    def __init__(self, specs: tuple[FeatureSpec, ...], grid_shape: tuple[int, int]) -> None:
        self.grid = BevGrid(rows=grid_shape[0], cols=grid_shape[1], extent_m=EXTENT_M)
        self.given: Mapping[str, Tensor] = {spec.name: torch.rand(spec.shape) for spec in specs}
        self._specs = specs

    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        return self._specs

    def features(self, inputs: CameraInputs, previous: int | None) -> tuple[Mapping[str, Tensor], Any]:  # noqa: ARG002
        return self.given, 1 if previous is None else previous + 1

    def state_dict(self) -> Mapping[str, Tensor]:
        return {"weight": torch.ones(3)}


class DecodingTeacher(FakeTeacher):
    """Remembers the maps it was asked to decode."""

    def __init__(self, specs: tuple[FeatureSpec, ...], grid_shape: tuple[int, int], boxes: Boxes) -> None:
        super().__init__(specs, grid_shape)
        self.decoded: list[Tensor] = []
        self.boxes = boxes

    def boxes_from_bev(self, bev: Tensor) -> Boxes:
        self.decoded.append(bev)
        return self.boxes

    def inheritable(self) -> Mapping[str, Tensor]:
        return {"queries": torch.zeros(2)}


def bev_spec(rows: int, cols: int, channels: int = 3) -> FeatureSpec:
    return FeatureSpec(
        name="bev",
        dims=("y", "x", "channel"),
        shape=(rows, cols, channels),
        encoding="affine",
        scale_dims=("channel",),
        description="BEV features.",
    )


def offsets_spec(rows: int, cols: int) -> FeatureSpec:
    return FeatureSpec(
        name="offsets",
        dims=("y", "x", "head", "axis"),
        shape=(rows, cols, 2, 2),
        encoding="symmetric",
        scale_dims=("head", "axis"),
        units="BEV cells (x, y) from the reference point",
        description="Offsets.",
    )


def weights_spec(rows: int, cols: int) -> FeatureSpec:
    return FeatureSpec(
        name="weights", dims=("y", "x", "head"), shape=(rows, cols, 2), encoding="unit", description="Weights."
    )


def query_spec(count: int = 5) -> FeatureSpec:
    return FeatureSpec(
        name="queries", dims=("query", "code"), shape=(count, 4), encoding="float32", description="Queries."
    )
