"""``temporal_target``: what a teacher saw of a place over several keyframes, fused while the scene is streamed.

It is TempDistiller's long-term target (``train/temporal_fusion.py``, the function that the training step calls), made
from the teacher's floats before they are rounded, on the cache's grid. With ``future_frames`` the frame also waits for
those that follow it: a teacher that works ahead of time has seen them, no teacher in the training loop cheaply can.

Memory is that of the window: the BEV maps of its frames, and all features of those that still wait.
"""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from pipeline.teacher_stage.network import LIVE_BEV
from pipeline.teacher_stage.quantise import promised
from schemas.bev_grid import BevGrid
from schemas.errors import RecipeError
from schemas.features import FeatureSpec
from schemas.frame_index import lidar_motion
from schemas.frames import Frame
from schemas.temporal_fusion import TemporalFusion
from train.temporal_fusion import fuse_window

TEMPORAL_TARGET = "temporal_target"


def temporal_target_spec(offered: Sequence[FeatureSpec], fusion: TemporalFusion) -> FeatureSpec:
    """The spec of the fused feature: the teacher's ``bev`` by another name.

    Raises:
        RecipeError: there is no ``bev`` to fuse.
    """
    bev = bev_of(offered)
    if bev is None:
        raise RecipeError(
            f"{TEMPORAL_TARGET} is fused from a teacher's bev (y, x, channel), and this one offers "
            f"{', '.join(spec.name for spec in offered)}. Leave it out of --arrays."
        )
    changes = {
        "name": TEMPORAL_TARGET,
        "scale_name": "",
        "description": f"bev of the frame fused with {fusion}, each brought to the frame's own ground.",
        "fusion": fusion,
    }
    return bev.model_copy(update=changes)


def bev_of(offered: Sequence[FeatureSpec]) -> FeatureSpec | None:
    """The spec of a BEV map, where a teacher gives one."""
    return next((spec for spec in offered if spec.name == "bev" and spec.dims == ("y", "x", "channel")), None)


def fusion_of(specs: Sequence[FeatureSpec]) -> TemporalFusion | None:
    """How the stage fuses frames for a cache of these features; None where it does not."""
    return next((spec.fusion for spec in specs if spec.name == TEMPORAL_TARGET), None)


def frames_ahead(specs: Sequence[FeatureSpec]) -> int:
    """How many keyframes must have followed before a frame of these features is complete."""
    fusion = fusion_of(specs)
    return 0 if fusion is None else fusion.future_frames


@dataclass(frozen=True, eq=False)
class ComputedFrame:
    """A keyframe with its features by name, on the teacher's device."""

    frame: Frame
    features: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class _Seen:
    """The map of a keyframe in the window.

    Attributes:
        frame: which.
        bev: float32, a copy: the network may use its memory again.
        previous_from_current: (4, 4); the identity where no keyframe before was seen.
    """

    frame: Frame
    bev: Float[Tensor, "1 channel rows cols"]
    previous_from_current: NDArray[np.float64]


class FusedScene:
    """Adds ``temporal_target`` to the frames of one scene, in time order.

    Args:
        fusion: which frames are fused, and how.
        bev: spec of the map that is fused.
        grid: its cells.
        kept: names of the features that will be stored; others of a frame that waits are let go.
    """

    def __init__(self, fusion: TemporalFusion, bev: FeatureSpec, grid: BevGrid, kept: Collection[str]) -> None:
        self._fusion, self._bev, self._grid = fusion, bev, grid
        self._kept = {*kept, bev.name, LIVE_BEV}
        self._window: deque[_Seen] = deque()
        self._waiting: deque[ComputedFrame] = deque()  # the newest frames of the window

    def add(self, computed: ComputedFrame) -> list[ComputedFrame]:
        """The next keyframe; gives the one that it completes, if any.

        Raises:
            CacheError: its ``bev`` is not what the spec promises.
        """
        values = promised(self._bev, computed.features).clone(memory_format=torch.contiguous_format)
        motion = lidar_motion(self._window[-1].frame, computed.frame) if self._window else np.eye(4)
        self._window.append(_Seen(computed.frame, values[None].permute(0, 3, 1, 2), motion))
        self._waiting.append(computed if self._fusion.future_frames == 0 else self._held(computed))
        return [self._complete()] if len(self._waiting) > self._fusion.future_frames else []

    def rest(self) -> list[ComputedFrame]:
        """At the end of the scene: the frames that still wait for others that will not come."""
        return [self._complete() for _ in range(len(self._waiting))]

    def _held(self, computed: ComputedFrame) -> ComputedFrame:
        kept = {name: values.clone() for name, values in computed.features.items() if name in self._kept}
        return ComputedFrame(computed.frame, kept)

    def _complete(self) -> ComputedFrame:
        """Fuse the oldest frame that waits with the whole window."""
        place = len(self._window) - len(self._waiting)
        computed, maps = self._waiting.popleft(), [seen.bev for seen in self._window]
        steps = np.stack([seen.previous_from_current for seen in self._window])
        steps_on_device = torch.from_numpy(steps[None]).to(maps[0].device)
        target = fuse_window(maps, steps_on_device, place, self._grid, self._fusion.temperature)
        if place == self._fusion.past_frames:
            self._window.popleft()
        return ComputedFrame(computed.frame, {**computed.features, TEMPORAL_TARGET: target[0].permute(1, 2, 0)})
