"""How far the cache is from the live teacher, measured on the first frames while they are cached."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.teacher_stage.decoded_boxes import BoxComparison
from pipeline.teacher_stage.feature_error import FeatureError
from pipeline.teacher_stage.live_frames import LiveFrame
from pipeline.teacher_stage.network import LIVE_BEV, DecodesBev
from pipeline.teacher_stage.teacher import Teacher
from schemas.boxes import Boxes
from schemas.fidelity import Fidelity
from schemas.manifest import Manifest
from train.learner import autocast
from train.targets import dequantise

FIDELITY_FRAMES = 4
"""Of the first scene: without history, and with a little."""

_BEV = "bev"


class FidelityMeter:
    """Compares frames as they come; it keeps sums, and no frame.

    Args:
        teacher: decodes BEV maps when it can.
        manifest: says what is cached, and how.
        frames: how many are enough.
    """

    def __init__(self, teacher: Teacher, manifest: Manifest, frames: int) -> None:
        self.frames = 0
        self._teacher, self._manifest, self._wanted = teacher, manifest, frames
        self._errors = {spec.name: FeatureError(spec) for spec in manifest.features}
        decodes = isinstance(teacher.network, DecodesBev) and _BEV in self._errors
        self._boxes = BoxComparison() if decodes else None

    @property
    def complete(self) -> bool:
        """Whether enough frames were seen."""
        return self.frames >= self._wanted

    def observe(self, live: LiveFrame) -> None:
        """One frame more. One that is not fit to be stored does not count: its scene fails, and the writer says why."""
        with torch.inference_mode():
            tier, stored = self._manifest.tier, live.stored.arrays
            cached = {spec.name: dequantise(spec, tier, stored) for spec in self._manifest.features}
            pairs = {name: (live.features[name].float(), cached[name]) for name in cached}
            if not all(torch.isfinite(values).all() for pair in pairs.values() for values in pair):
                return
            for name, pair in pairs.items():
                self._errors[name].add(*pair)
            if self._boxes is not None:
                self._boxes.add(self._decoded(_decodable_bev(live.features)), self._decoded(cached[_BEV]))
            self.frames += 1

    def result(self) -> Fidelity:
        """What was found; at least one frame must have been seen."""
        return Fidelity(
            frames=self.frames,
            features=tuple(error.result() for error in self._errors.values()),
            boxes=None if self._boxes is None else self._boxes.result(),
        )

    def _decoded(self, bev: Tensor) -> Boxes:
        network = self._teacher.network
        assert isinstance(network, DecodesBev), "asked only of networks that decode"
        with autocast(bev.device, self._teacher.precision):
            return network.boxes_from_bev(bev)


def _decodable_bev(features: Mapping[str, Tensor]) -> Tensor:
    """The map that the teacher itself decodes, which a reduced cache does not hold."""
    return features.get(LIVE_BEV, features[_BEV]).float()
