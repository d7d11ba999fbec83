"""Cached targets for planned batches: threads fill ring slots ahead of the step that needs them.

No worker processes: handing tensors from a process to its parent costs several times the read itself. The order of the
batches is the order they were asked for, whatever the number of threads, and an error in a thread is raised where its
batch is collected.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cache.reading import Cache
from train.clip_reading import read_clip
from train.clips import Clip
from train.ring import Slot, SlotRing
from train.targets import TeacherTargets


class StreamOptions(BaseModel):
    """How batches are prepared. Nothing here changes a number.

    Attributes:
        look_ahead: batches in preparation while one is trained on.
        read_threads: threads that read the cache.
        decode_threads: threads that decode images.
        verify_checksums: check every cached frame as it is read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    look_ahead: int = Field(default=2, ge=1)
    read_threads: int = Field(default=2, ge=1)
    decode_threads: int = Field(default=2, ge=1)
    verify_checksums: bool = True


@dataclass(frozen=True)
class TargetWindow:
    """Which cached numbers a batch needs.

    Attributes:
        features: names of cached features.
        frames: consecutive keyframes of each clip, ending with the supervised one; fewer exist at a scene's start.
        batch_size: most clips in a batch.
    """

    features: tuple[str, ...]
    frames: int
    batch_size: int


@runtime_checkable
class TargetSource(Protocol):
    """Where the targets of planned batches come from: the cache, or a teacher at work."""

    def start(self, clips: Sequence[Clip]) -> Any:
        """Begin with a batch's targets; what is returned is for ``collect``. Few are pending at a time."""

    def collect(self, pending: Any) -> TeacherTargets:
        """The targets of the batch that was started first of those pending. They hold until the next collection."""


OpenTargets = Callable[[TargetWindow], AbstractContextManager[TargetSource]]
"""Opens a source for a training run, which closes it at its end."""


@dataclass(frozen=True, eq=False)
class PendingTargets:
    """Targets being read; to be collected in the order they were started."""

    slot: Slot
    clips: Sequence[Clip]
    reads: tuple[Future[None], ...]


class TeacherStream:
    """Reads windows of cached features. Use it as a context manager, which ends its threads.

    Raises:
        CacheError: the cache lacks one of the features.
    """

    def __init__(self, cache: Cache, window: TargetWindow, options: StreamOptions, device: torch.device) -> None:
        cache.require_features(window.features)
        manifest = cache.manifest
        self._cache, self._window, self._device = cache, window, device
        self._verify = options.verify_checksums
        self._specs = tuple(manifest.feature(name) for name in window.features)
        self._ring = SlotRing(
            (array for spec in self._specs for array in spec.stored(manifest.tier)),
            leading=(window.batch_size, window.frames),
            slots=options.look_ahead + 1,
            pinned=device.type == "cuda",
        )
        self._motion = EgoMotion(cache.frames)
        self._lent: Slot | None = None
        self._readers = ThreadPoolExecutor(options.read_threads, thread_name_prefix="cache-reader")

    def __enter__(self) -> "TeacherStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._readers.shutdown(wait=True, cancel_futures=True)

    def start(self, clips: Sequence[Clip]) -> PendingTargets:
        """Begin to read the targets of a batch; at most ``look_ahead`` of them may be pending."""
        slot = self._ring.acquire()
        reads = tuple(self._readers.submit(self._fill, slot, row, clip) for row, clip in enumerate(clips))
        return PendingTargets(slot, clips, reads)

    def collect(self, pending: PendingTargets) -> TeacherTargets:
        """Wait for a batch's targets. They hold until the next ones are collected.

        Raises:
            CacheError: a frame is missing or damaged, or its scene is not in the cache; whichever, it is named.
        """
        for read in pending.reads:
            read.result()
        if self._lent is not None:
            self._ring.release(self._lent)
        self._lent = pending.slot
        count = len(pending.clips)
        steps = [range(clip.steps[-1] + 1 - self._window.frames, clip.steps[-1] + 1) for clip in pending.clips]
        targets = TeacherTargets(
            stored={name: values[:count] for name, values in pending.slot.arrays.items()},
            valid=torch.tensor([[step >= 0 for step in row] for row in steps]),
            previous_from_current=torch.from_numpy(self._motion.window(pending.clips, steps)),
            specs=self._specs,
            tier=self._cache.manifest.tier,
            grid=self._cache.manifest.grid,
        )
        if self._device.type == "cpu":
            return targets
        targets = targets.to(self._device)
        if self._device.type == "cuda":
            pending.slot.crossed = torch.cuda.current_stream(self._device).record_event()
        return targets

    def _fill(self, slot: Slot, row: int, clip: Clip) -> None:
        """Read a clip's window into its row of the slot, right-aligned; frames before the scene's start are zeros."""
        last_step = clip.steps[-1]
        count = min(last_step + 1, self._window.frames)
        for name, memory in slot.memory.items():
            if count < self._window.frames:
                memory[row, :-count] = 0
            shard = self._cache.shard(clip.scene_name, name)
            read_clip(shard, last_step + 1 - count, memory[row, -count:], verify=self._verify)


class EgoMotion:
    """``previous_from_current`` of any frame, from the frame index."""

    def __init__(self, frames: pa.Table) -> None:
        frames = frames.sort_by([("scene_name", "ascending"), ("step", "ascending")])
        flat = frames["previous_from_current"].combine_chunks().flatten().to_numpy()
        self._matrices = np.concatenate([np.eye(4)[None], flat.reshape(-1, 4, 4)])
        scene_names = frames["scene_name"].to_pylist()
        self._first_rows = {name: row for row, name in reversed(list(enumerate(scene_names, start=1)))}

    def window(self, clips: Sequence[Clip], steps: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """(batch, frame, 4, 4); the identity before a scene's start."""
        firsts = [self._first_rows[clip.scene_name] for clip in clips]
        rows = [[first + step if step >= 0 else 0 for step in row] for first, row in zip(firsts, steps, strict=True)]
        found: NDArray[np.float64] = self._matrices[rows]
        return found
