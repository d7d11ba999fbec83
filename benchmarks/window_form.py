"""Targets in float32 that come from somewhere else than a cache: what they share with those of a cache."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cache.reading import Cache
from schemas.features import FeatureSpec
from train.clips import Clip
from train.stream import EgoMotion, TargetWindow
from train.targets import TeacherTargets


def as_floats(spec: FeatureSpec) -> FeatureSpec:
    """The same feature, stored as it is."""
    return spec.model_copy(update={"encoding": "float32", "scale_dims": (), "scale_name": ""})


class WindowForm:
    """What all targets of a window have in common: their specs, the window's steps and the ego motion between them."""

    def __init__(self, cache: Cache, window: TargetWindow, device: torch.device) -> None:
        manifest = cache.manifest
        self.specs = tuple(as_floats(manifest.feature(name)) for name in window.features)
        self._grid, self._tier = manifest.grid, manifest.tier  # of the tier nothing follows: no spec is scaled
        self._motion = EgoMotion(cache.frames)
        self._frames, self._device = window.frames, device

    def steps(self, clip: Clip) -> range:
        """The window's steps; those before the start of the scene are negative."""
        return range(clip.steps[-1] + 1 - self._frames, clip.steps[-1] + 1)

    def zeros(self, batch: int) -> dict[str, Tensor]:
        """(batch, frame, ...) by feature, to be filled where a step is not negative."""
        return {s.name: torch.zeros((batch, self._frames, *s.shape), device=self._device) for s in self.specs}

    def targets(self, clips: Sequence[Clip], values: Mapping[str, Tensor]) -> TeacherTargets:
        """Targets with these values."""
        steps = [self.steps(clip) for clip in clips]
        return TeacherTargets(
            stored=values,
            valid=torch.tensor([[step >= 0 for step in row] for row in steps], device=self._device),
            previous_from_current=torch.from_numpy(self._motion.window(clips, steps)).to(self._device),
            specs=self.specs,
            tier=self._tier,
            grid=self._grid,
        )
