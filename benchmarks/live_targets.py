"""Targets that nothing has rounded: the teacher's own float32, from its stream over every scene.

The teacher runs over a scene once, as the teacher stage runs it, and its floats are kept in files; ``LiveTargets``
hands them to a training run in the place of a cache.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.window_form import WindowForm
from cache.reading import Cache
from pipeline.teacher_stage.job import StageSource
from pipeline.teacher_stage.live_frames import LiveScene, live_frames
from scenes.frame_stream import stream_frames
from train.clips import Clip
from train.stream import TargetWindow
from train.targets import TeacherTargets


def live_features(source: StageSource, scene_name: str) -> Iterator[Mapping[str, Tensor]]:
    """Features of a scene's frames in time order, as the teacher stage has them before it rounds."""
    scene = LiveScene(source.teacher, source.manifest.features, source.manifest.tier, source.device)
    frames = source.tables.frames(scene_name)
    for live in live_frames(scene, stream_frames(frames, source.tables.data_root, source.manifest.preprocessing)):
        yield {name: values.float() for name, values in live.features.items()}


def keep_live(folder: Path, scene_name: str, frames: Iterator[Mapping[str, Tensor]], names: Sequence[str]) -> None:
    """Write features of a scene as ``folder/<scene>/<feature>.npy``, (step, ...) float32, whole or not at all."""
    kept: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    for features in frames:
        for name, values in kept.items():
            values.append(features[name].cpu().numpy())
    partial = folder / f".{scene_name}"
    rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, values in kept.items():
        np.save(partial / f"{name}.npy", np.stack(values))
    partial.rename(folder / scene_name)


def open_live(folder: Path, scene_name: str, name: str) -> NDArray[np.float32]:
    """A feature of a scene, (step, ...), mapped and not read."""
    values: NDArray[np.float32] = np.load(folder / scene_name / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    return values


class LiveTargets:
    """Windows of features that ``keep_live`` has written.

    Args:
        folder: of those features.
        cache: which features and frames there are; no number is read from it.
        window: what a batch needs.
        device: where the targets are wanted.
    """

    def __init__(self, folder: Path, cache: Cache, window: TargetWindow, device: torch.device) -> None:
        cache.require_features(window.features)
        self._folder, self._form = folder, WindowForm(cache, window, device)

    def __enter__(self) -> "LiveTargets":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def start(self, clips: Sequence[Clip]) -> Sequence[Clip]:
        """Nothing is read ahead."""
        return clips

    def collect(self, pending: Sequence[Clip]) -> TeacherTargets:
        """Copies of the kept floats, zeros before a scene's start."""
        values = self._form.zeros(len(pending))
        for name, rows in values.items():
            for row, clip in zip(rows, pending, strict=True):
                steps = self._form.steps(clip)
                present = np.array(open_live(self._folder, clip.scene_name, name)[max(0, steps.start) : steps.stop])
                row[len(steps) - len(present) :] = torch.from_numpy(present)
        return self._form.targets(pending, values)
