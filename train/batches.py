"""Everything a training step needs of its clips: camera images, annotations and, from the cache, the teacher's targets.

Images are decoded by a pool of threads, a few batches ahead, and another thread lays them together: a batch of Tiny's
images is 28 MB, whose copying would be waited for. Decoding is not cached: measured at the demo's 224×126 pixels it is
1.4 ms a frame, a twentieth of a student's step, and at 1600×900 the decoded frames would not fit memory.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from detectors.inputs import CameraBatch, batch_of
from detectors.targets import in_range
from schemas.bev_grid import BevGrid
from schemas.boxes import Boxes
from schemas.frames import CameraInputs
from train.clips import ClipPosition, PlannedBatch
from train.past_boxes import past_boxes
from train.stream import StreamOptions, TargetSource
from train.targets import TeacherTargets


@dataclass(frozen=True, eq=False)
class HistoryStep:
    """The frames that lie equally far before the supervised ones.

    Attributes:
        cameras: frames of those samples that have history this long.
        samples: which samples of the batch those are, ascending.
    """

    cameras: CameraBatch
    samples: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """One step's input, on the training device.

    Attributes:
        current: the supervised frames.
        history: what lies before them, oldest first; empty without history.
        boxes: annotations of the supervised frames whose centres are inside the BEV extent.
        past_boxes: for each sample the annotations of its earlier frames, nearest first, where they were in the LiDAR
            frame of the supervised one; of any range.
        previous_is_adjacent: whether the frame before the supervised one is its neighbour in the scene.
        continues: whether a sample goes on from the memory that its scene's sample of the batch before has left.
        teacher: cached targets, valid until the next batch is asked for; None without a cache.
        sample_tokens: of the supervised frames.
        after: where the sequence of clips goes on.
    """

    current: CameraBatch
    history: tuple[HistoryStep, ...]
    boxes: tuple[Boxes, ...]
    past_boxes: tuple[tuple[Boxes, ...], ...]
    previous_is_adjacent: Bool[Tensor, " batch"]
    continues: tuple[bool, ...]
    teacher: TeacherTargets | None
    sample_tokens: tuple[str, ...]
    after: ClipPosition


FrameLoader = Callable[[str, str], CameraInputs]
"""Sample token and occasion (epoch and clip, which augmentation is drawn by) to decoded frame; called from several
threads at once."""


@dataclass(frozen=True, eq=False)
class _Frames:
    """What decoded frames make of a batch, on the CPU."""

    current: CameraBatch
    history: tuple[HistoryStep, ...]
    boxes: tuple[Boxes, ...]
    past_boxes: tuple[tuple[Boxes, ...], ...]


@dataclass(frozen=True, eq=False)
class _Pending:
    planned: PlannedBatch
    frames: Future[_Frames]
    targets: Any


class BatchStream(Iterator[TrainingBatch]):
    """Batches in the planned order, prepared ahead. Use it as a context manager, which ends its threads.

    Args:
        planned: what to prepare.
        load_frame: decodes a frame.
        teacher: where the targets come from; None trains from annotations alone.
        grid: BEV grid of the detector being trained.
        options: threads and look-ahead.
        device: where batches go.
    """

    def __init__(
        self,
        planned: Iterator[PlannedBatch],
        load_frame: FrameLoader,
        teacher: TargetSource | None,
        grid: BevGrid,
        options: StreamOptions,
        device: torch.device,
    ) -> None:
        self._planned, self._load_frame, self._teacher = planned, load_frame, teacher
        self._grid, self._device = grid, device
        self._look_ahead = options.look_ahead
        self._pending: deque[_Pending] = deque()
        self._decoders = ThreadPoolExecutor(options.decode_threads, thread_name_prefix="image-decoder")
        self._assembler = ThreadPoolExecutor(1, thread_name_prefix="batch-assembler")
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="batch-starter")
        self._starting = self._starter.submit(self._prepare_more)

    def __enter__(self) -> "BatchStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._starter.shutdown(wait=True, cancel_futures=True)  # it hands work to the others
        self._assembler.shutdown(wait=False, cancel_futures=True)
        self._decoders.shutdown(wait=True, cancel_futures=True)
        self._assembler.shutdown(wait=True)  # what it waited for has ended

    def __next__(self) -> TrainingBatch:
        """The next batch.

        Raises:
            DataError: an image or annotation is not what the tables say.
            CacheError: a cached frame is missing or damaged.
        """
        self._starting.result()
        if not self._pending:
            raise StopIteration
        batch = self._finished(self._pending.popleft())
        # Not here: the threads that it wakes would take the interpreter from the step that waits for this batch.
        self._starting = self._starter.submit(self._prepare_more)
        return batch

    def _prepare_more(self) -> None:
        for planned in islice(self._planned, self._look_ahead - len(self._pending)):
            self._pending.append(self._start(planned))

    def _finished(self, pending: _Pending) -> TrainingBatch:
        frames = pending.frames.result()
        return TrainingBatch(
            current=frames.current.to(self._device),
            history=tuple(HistoryStep(step.cameras.to(self._device), step.samples) for step in frames.history),
            boxes=frames.boxes,
            past_boxes=frames.past_boxes,
            previous_is_adjacent=torch.tensor(
                [clip.previous_is_adjacent for clip in pending.planned.clips], device=self._device
            ),
            continues=tuple(clip.carried_from is not None for clip in pending.planned.clips),
            teacher=self._collect(pending.targets),
            sample_tokens=tuple(clip.sample_tokens[-1] for clip in pending.planned.clips),
            after=pending.planned.after,
        )

    def _start(self, planned: PlannedBatch) -> _Pending:
        decoded = [
            [
                self._decoders.submit(self._load_frame, token, f"{planned.after.epoch}/{clip.sample_tokens[-1]}")
                for token in clip.sample_tokens
            ]
            for clip in planned.clips
        ]
        targets = None if self._teacher is None else self._teacher.start(planned.clips)
        return _Pending(planned, self._assembler.submit(_assembled, decoded, self._grid), targets)

    def _collect(self, targets: Any) -> TeacherTargets | None:
        return None if self._teacher is None else self._teacher.collect(targets)


def _assembled(decoded: Sequence[Sequence[Future[CameraInputs]]], grid: BevGrid) -> _Frames:
    """Wait for the frames of every clip and lay them together."""
    clips = [[frame.result() for frame in frames] for frames in decoded]
    return _Frames(
        current=batch_of([frames[-1] for frames in clips]),
        history=_history(clips),
        boxes=tuple(in_range(_annotations(frames[-1]), grid) for frames in clips),
        past_boxes=tuple(past_boxes([inputs.frame for inputs in frames]) for frames in clips),
    )


def _history(clips: Sequence[Sequence[CameraInputs]]) -> tuple[HistoryStep, ...]:
    steps = []
    for back in range(max(len(frames) for frames in clips), 1, -1):
        samples = tuple(sample for sample, frames in enumerate(clips) if len(frames) >= back)
        steps.append(HistoryStep(batch_of([clips[sample][-back] for sample in samples]), samples))
    return tuple(steps)


def _annotations(inputs: CameraInputs) -> Boxes:
    assert inputs.frame.boxes is not None, f"sample {inputs.frame.sample_token} was planned, but has no annotations"
    return inputs.frame.boxes
