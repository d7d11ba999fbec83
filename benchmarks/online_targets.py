"""Targets as training without a cache has them: in every step the teacher sees some frames of every clip anew."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor

from benchmarks.window_form import WindowForm
from cache.reading import Cache
from detectors.bevformer import BEVFormer
from detectors.inputs import batch_of
from detectors.outputs import TemporalState
from scenes.images import load_inputs
from scenes.scene_tables import SceneTables
from schemas.frames import CameraInputs
from train.clips import Clip
from train.history import rearranged
from train.learner import autocast
from train.options import Precision
from train.stream import StreamOptions, TargetWindow
from train.targets import TeacherTargets


@dataclass(frozen=True, eq=False)
class OnlineTeacher:
    """A teacher that runs in the student's process.

    Attributes:
        detector: in evaluation mode, on its device.
        precision: of its arithmetic.
        tables: where its frames come from.
        queue: frames it sees of each clip, the supervised one included (but never fewer than the targets span); None
            for all from the start of the scene on, which alone gives what a cache holds.
    """

    detector: BEVFormer
    precision: Precision
    tables: SceneTables
    queue: int | None


@dataclass(frozen=True, eq=False)
class _Decoding:
    clips: Sequence[Clip]
    frames: tuple[tuple[Future[CameraInputs], ...], ...]


class OnlineTargets:
    """Targets computed while the student waits: the clips of a batch side by side, no gradient, no decoder for history.

    Args:
        teacher: the network.
        cache: which features and frames there are; no number is read from it.
        window: what a batch needs.
        options: threads that decode the teacher's images.
        device: the teacher's and the student's.
    """

    def __init__(
        self, teacher: OnlineTeacher, cache: Cache, window: TargetWindow, options: StreamOptions, device: torch.device
    ) -> None:
        self._teacher, self._form, self._window, self._device = (
            teacher,
            WindowForm(cache, window, device),
            window,
            device,
        )
        self._decoders = ThreadPoolExecutor(options.decode_threads, thread_name_prefix="teacher-image-decoder")

    def __enter__(self) -> "OnlineTargets":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._decoders.shutdown(wait=True, cancel_futures=True)

    def start(self, clips: Sequence[Clip]) -> _Decoding:
        """Decode the teacher's images ahead, as the student's are."""
        return _Decoding(clips, tuple(tuple(map(self._decode, self._tokens(clip))) for clip in clips))

    def collect(self, pending: _Decoding) -> TeacherTargets:
        """Run the teacher over the batch's clips."""
        clips = [[future.result() for future in frames] for frames in pending.frames]
        values = self._form.zeros(len(clips))
        teacher, state = self._teacher, None
        known: tuple[int, ...] = ()
        with torch.inference_mode(), autocast(self._device, teacher.precision):
            for back in range(max(map(len, clips)), 0, -1):
                samples = tuple(sample for sample, frames in enumerate(clips) if len(frames) >= back)
                if state is not None and samples != known:
                    state = rearranged(state, [known.index(s) if s in known else None for s in samples])
                known = samples
                state = self._advance([clips[sample][-back] for sample in samples], state, samples, back, values)
        return self._form.targets(pending.clips, values)

    def _advance(
        self,
        inputs: Sequence[CameraInputs],
        state: TemporalState | None,
        samples: Sequence[int],
        back: int,
        values: Mapping[str, Tensor],
    ) -> TemporalState:
        """One keyframe of some samples; ``back`` counts from the end of the window, 1 being the supervised frame."""
        cameras = batch_of(inputs).to(self._device)
        detector = self._teacher.detector
        if back > self._window.frames:
            return detector.encode(cameras, state)
        features, left = detector.features(cameras, state)
        for row, sample in enumerate(samples):
            found = detector.cacheable(features, row)
            for name, into in values.items():
                into[sample, -back] = found[name]
        return left

    def _tokens(self, clip: Clip) -> tuple[str, ...]:
        last, queue = clip.steps[-1], self._teacher.queue
        first = 0 if queue is None else max(0, last + 1 - max(queue, self._window.frames))
        return tuple(self._teacher.tables.sample_tokens(clip.scene_name)[first : last + 1])

    def _decode(self, sample_token: str) -> Future[CameraInputs]:
        tables, preprocessing = self._teacher.tables, self._teacher.detector.config.preprocessing
        return self._decoders.submit(load_inputs, tables.frame(sample_token), tables.data_root, preprocessing)
