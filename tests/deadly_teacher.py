"""Teachers for ``--teacher FILE.py:function`` whose process dies in the middle of a scene, or which are slow."""

import os
import signal
import time
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

DEADLY_SCENE = "scene-0001"
GRID = BevGrid(rows=16, cols=16, extent_m=(-51.2, -51.2, -5.0, 51.2, 51.2, 3.0))
BEV = FeatureSpec(
    name="bev",
    dims=("y", "x", "channel"),
    shape=(16, 16, 32),
    encoding="affine",
    scale_dims=("channel",),
    description="Noise that remembers the frames before.",
)


class Noise:
    """Seeded by the frame's token, plus a little of the frame before, so that a scene cut short would show."""

    preprocessing = Preprocessing(color_order="rgb", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    grid = GRID
    class_names = CLASS_NAMES

    def __init__(self, seconds: float = 0.0, deadly_step: int | None = None) -> None:
        self._seconds, self._deadly_step = seconds, deadly_step

    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        return (BEV,)

    def features(self, inputs: CameraInputs, previous: Tensor | None) -> tuple[Mapping[str, Tensor], Any]:
        time.sleep(self._seconds)
        if inputs.frame.scene_name == DEADLY_SCENE and inputs.frame.step == self._deadly_step:
            os.kill(os.getpid(), signal.SIGKILL)
        seeded = torch.Generator().manual_seed(int(inputs.frame.sample_token[:12], 16))
        bev = torch.randn(BEV.shape, generator=seeded)
        bev = bev if previous is None else bev + 0.5 * previous
        return {"bev": bev}, bev

    def state_dict(self) -> Mapping[str, Tensor]:
        return {"weight": torch.ones(1)}


def noise(checkpoint: Path | None, device: torch.device) -> Noise:
    return Noise()


def slow(checkpoint: Path | None, device: torch.device) -> Noise:
    return Noise(seconds=0.5)


class LongAfterFirst(Noise):
    """Done with the first scene at once; the others take long enough for whoever watches to do something meanwhile."""

    def features(self, inputs: CameraInputs, previous: Tensor | None) -> tuple[Mapping[str, Tensor], Any]:
        time.sleep(0.0 if inputs.frame.scene_name == DEADLY_SCENE else 5.0)
        return super().features(inputs, previous)


def long_after_first(checkpoint: Path | None, device: torch.device) -> LongAfterFirst:
    return LongAfterFirst()


def deadly(checkpoint: Path | None, device: torch.device) -> Noise:
    return Noise(deadly_step=2)


class NotANumber(Noise):
    """Gives NaN in the middle of a scene."""

    def features(self, inputs: CameraInputs, previous: Tensor | None) -> tuple[Mapping[str, Tensor], Any]:
        features, state = super().features(inputs, previous)
        if inputs.frame.scene_name == DEADLY_SCENE and inputs.frame.step == 2:
            features = {"bev": torch.full(BEV.shape, torch.nan)}
        return features, state


def nan(checkpoint: Path | None, device: torch.device) -> NotANumber:
    return NotANumber()


class Exact(Noise):
    """Its map is kept as it is, to the last bit."""

    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        return (BEV.model_copy(update={"encoding": "float32", "scale_dims": ()}),)


def exact(checkpoint: Path | None, device: torch.device) -> Exact:
    return Exact()


class WithTarget(Noise):
    """Offers a ``temporal_target`` of its own."""

    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        return BEV, BEV.model_copy(update={"name": "temporal_target"})


def with_target(checkpoint: Path | None, device: torch.device) -> WithTarget:
    return WithTarget()
