"""A scene streamed through the teacher: frames go in in time order, and come out as the cache will hold them.

A frame comes out at once, unless it holds a feature that looks ahead (``temporal_target.py``).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.teacher_stage.quantise import StoredFrame, quantise
from pipeline.teacher_stage.teacher import Teacher
from pipeline.teacher_stage.temporal_target import ComputedFrame, FusedScene, bev_of, fusion_of
from schemas.errors import UserError
from schemas.features import FeatureSpec, Tier
from schemas.frames import CameraInputs, Frame
from train.learner import autocast


@dataclass(frozen=True, eq=False)
class LiveFrame:
    """A frame just computed.

    Attributes:
        frame: which.
        features: the teacher's floats by name, on its device.
        stored: the same as the cache will hold them.
    """

    frame: Frame
    features: Mapping[str, Tensor]
    stored: StoredFrame


class LiveScene:
    """One scene, frame by frame.

    Args:
        teacher: on ``device``.
        specs: the features to keep.
        tier: storage tier.
        device: where the teacher computes.
    """

    def __init__(self, teacher: Teacher, specs: Sequence[FeatureSpec], tier: Tier, device: torch.device) -> None:
        self._teacher, self._specs, self._tier, self._device = teacher, tuple(specs), tier, device
        self._state: Any = None
        fusion, bev = fusion_of(specs), bev_of(teacher.network.feature_specs())
        self._fused: FusedScene | None = None
        if fusion is not None:
            assert bev is not None, "looked at when the teacher was opened"
            self._fused = FusedScene(fusion, bev, teacher.network.grid, [spec.name for spec in specs])

    def add(self, inputs: CameraInputs) -> list[LiveFrame]:
        """Compute the next keyframe; gives the frame that it completes, if any.

        Raises:
            CacheError: a feature is not what the teacher's specs promise.
        """
        with torch.inference_mode():
            with autocast(self._device, self._teacher.precision):
                found, self._state = self._teacher.network.features(inputs, self._state)
            computed = ComputedFrame(inputs.frame, found)
            if self._fused is None:
                return [self._live(computed)]
            with told_where(inputs.frame):
                completed = self._fused.add(computed)
            return [self._live(each) for each in completed]

    def rest(self) -> list[LiveFrame]:
        """The frames that waited for others when the scene ended."""
        with torch.inference_mode():
            return [] if self._fused is None else [self._live(each) for each in self._fused.rest()]

    def _live(self, computed: ComputedFrame) -> LiveFrame:
        with told_where(computed.frame):
            stored = quantise(self._specs, computed.features, self._tier)
        return LiveFrame(computed.frame, computed.features, stored)


def live_frames(scene: LiveScene, inputs_in_order: Iterable[CameraInputs]) -> Iterator[LiveFrame]:
    """All frames of a scene, in time order.

    Raises:
        CacheError: as ``LiveScene.add``; frames before it have been yielded.
    """
    for inputs in inputs_in_order:
        yield from scene.add(inputs)
    yield from scene.rest()


@contextmanager
def told_where(frame: Frame) -> Iterator[None]:
    """Name the scene and step in what people are told of a frame."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"scene {frame.scene_name}, step {frame.step}: {error}") from error
