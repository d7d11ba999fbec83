"""A teacher for ``--teacher FILE.py:function`` that costs next to nothing, so that the disk is what its writers do."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from schemas.bev_grid import BevGrid
from schemas.boxes import CLASS_NAMES
from schemas.features import FeatureSpec
from schemas.frames import CameraInputs
from schemas.preprocessing import Preprocessing

CELLS = 32
SPECS = (
    FeatureSpec(
        name="bev",
        dims=("y", "x", "channel"),
        shape=(CELLS, CELLS, 32),
        encoding="affine",
        scale_dims=("channel",),
        description="Noise that remembers the frames before.",
    ),
    FeatureSpec(
        name="weights", dims=("y", "x", "head"), shape=(CELLS, CELLS, 4), encoding="unit", description="Its fractions."
    ),
    FeatureSpec(
        name="queries", dims=("query", "channel"), shape=(50, 32), encoding="float16", description="Some of it."
    ),
)


class NoiseTeacher:
    """Seeded by the frame, plus half of the frame before: a scene that is cut short or mixed up shows."""

    preprocessing = Preprocessing(color_order="rgb", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    grid = BevGrid(rows=CELLS, cols=CELLS, extent_m=(-51.2, -51.2, -5.0, 51.2, 51.2, 3.0))
    class_names = CLASS_NAMES

    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        """One of each kind of storage."""
        return SPECS

    def features(self, inputs: CameraInputs, previous: Tensor | None) -> tuple[Mapping[str, Tensor], Any]:
        """The same for the same frames in the same order, in every process."""
        seeded = torch.Generator().manual_seed(int(inputs.frame.sample_token[:12], 16))
        bev = torch.randn(SPECS[0].shape, generator=seeded)
        if previous is not None:
            bev = bev + 0.5 * previous
        return {"bev": bev, "weights": bev[..., :4].sigmoid(), "queries": bev.reshape(-1, 32)[:50]}, bev

    def state_dict(self) -> Mapping[str, Tensor]:
        """It has one weight, so that it has a hash."""
        return {"weight": torch.ones(1)}


def noise(checkpoint: Path | None, device: torch.device) -> NoiseTeacher:  # noqa: ARG001  # the protocol's arguments
    """The teacher."""
    return NoiseTeacher()
