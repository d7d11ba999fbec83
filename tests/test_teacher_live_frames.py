"""A scene streamed through the teacher, with frames that wait for others: bytes, memory, and what people are told."""

import weakref
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from fake_teacher import FakeTeacher, bev_spec, query_spec
from fidelity_fakes import teacher_of
from torch import Tensor

from pipeline.teacher_stage.live_frames import LiveScene, live_frames
from pipeline.teacher_stage.made_up_frame import made_up_inputs
from pipeline.teacher_stage.temporal_target import ComputedFrame, FusedScene, temporal_target_spec
from schemas.bev_grid import BevGrid
from schemas.errors import CacheError
from schemas.frames import CameraInputs
from schemas.temporal_fusion import TemporalFusion

CPU = torch.device("cpu")
BLACK = made_up_inputs(FakeTeacher.preprocessing, (32, 18), 0)


def moved(step: int) -> CameraInputs:
    pose = np.eye(4)
    pose[1, 3] = 3.0 * step
    return replace(BLACK, frame=replace(BLACK.frame, step=step, global_from_lidar=pose))


class Reusing(FakeTeacher):
    """Computes every frame into the same memory, as a captured CUDA graph would."""

    def features(self, inputs: CameraInputs, previous: int | None) -> tuple[Mapping[str, Tensor], Any]:  # noqa: ARG002
        seeded = torch.Generator().manual_seed(inputs.frame.step)
        for values in self.given.values():
            values.copy_(torch.rand(values.shape, generator=seeded))
        return self.given, None


class Fresh(Reusing):
    """The same, every frame in memory of its own."""

    def features(self, inputs: CameraInputs, previous: int | None) -> tuple[Mapping[str, Tensor], Any]:
        found, state = super().features(inputs, previous)
        return {name: values.clone() for name, values in found.items()}, state


@pytest.mark.parametrize("future_frames", [0, 2])
def test_a_teacher_may_use_its_memory_again(future_frames: int) -> None:
    specs = (bev_spec(8, 8), query_spec())
    kept = (*specs, temporal_target_spec(specs, TemporalFusion(past_frames=2, future_frames=future_frames)))
    ends = []
    for network in (Reusing(specs, (8, 8)), Fresh(specs, (8, 8))):
        teacher = replace(teacher_of(network), fused=kept[-1:])
        ends.append(list(live_frames(LiveScene(teacher, kept, "int8", CPU), map(moved, range(5)))))
    for ours, theirs in zip(*ends, strict=True):
        assert ours.frame.step == theirs.frame.step
        assert ours.stored.arrays.keys() == theirs.stored.arrays.keys()
        assert all(torch.equal(values, theirs.stored.arrays[name]) for name, values in ours.stored.arrays.items())


def test_memory_is_that_of_the_window() -> None:
    spec = bev_spec(8, 8)
    grid = BevGrid(rows=8, cols=8, extent_m=(-32, -32, -5, 32, 32, 3))
    fused = FusedScene(TemporalFusion(past_frames=2, future_frames=1), spec, grid, ["bev"])
    alive: list[Any] = []
    for step in range(12):
        frame = moved(step).frame
        alive.append(weakref.ref(frame))
        fused.add(ComputedFrame(frame, {"bev": torch.rand(spec.shape)}))
        del frame
        assert sum(each() is not None for each in alive) <= 4
    assert len(fused.rest()) == 1
    assert fused.rest() == []


def test_a_map_that_is_none_is_told_by_step() -> None:
    specs = (bev_spec(8, 8), query_spec())
    network = FakeTeacher(specs, (8, 8))
    target = temporal_target_spec(specs, TemporalFusion())
    scene = LiveScene(replace(teacher_of(network), fused=(target,)), (target,), "int8", CPU)
    scene.add(moved(0))
    network.given = {"bev": torch.rand(7, 8, 3)}
    with pytest.raises(CacheError, match=r"^scene made-up, step 1: bev has shape \(7, 8, 3\), expected \(8, 8, 3\)"):
        scene.add(moved(1))
