"""Cached targets for somebody else's training loop: sample tokens in, targets out, in the order asked for."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch.utils.data import IterableDataset, get_worker_info

from cache.reading import Cache
from schemas.errors import RecipeError
from train.clips import Clip
from train.stream import PendingTargets, StreamOptions, TargetWindow, TeacherStream
from train.targets import TeacherTargets

CPU = torch.device("cpu")


class TeacherClips(IterableDataset[TeacherTargets]):
    """Targets of batches of sample tokens, read ahead by threads while the loop computes.

    Iterate over it, or hand it to ``DataLoader(clips, batch_size=None)``, which then adds nothing but its place in an
    existing loop. It cannot be used with worker processes: handing tensors to their parent costs several times the read
    itself. A batch's tensors hold until the next batch is asked for.

    Args:
        cache: an open cache.
        window: features, keyframes a sample (the one named and those just before it), and the largest batch.
        batches: sample tokens of each batch, any batches in any order; gone through anew in every pass.
        options: threads, look-ahead, checksums.
        device: where the targets are wanted.

    Raises:
        CacheError: the cache lacks a feature; or, where the batch comes up, a frame.
        RecipeError: a batch is larger than the window's, or the reading was put into worker processes.
    """

    def __init__(
        self,
        cache: Cache,
        window: TargetWindow,
        batches: Iterable[Sequence[str]],
        options: StreamOptions = StreamOptions(),  # noqa: B008  frozen
        device: torch.device = CPU,
    ) -> None:
        cache.require_features(window.features)
        self._cache, self._window, self._batches = cache, window, batches
        self._options, self._device = options, device

    def __iter__(self) -> Iterator[TeacherTargets]:
        if get_worker_info() is not None:
            raise RecipeError(
                "TeacherClips reads in threads of its own and cannot run in a DataLoader's worker processes: "
                "expected DataLoader(clips, batch_size=None, num_workers=0). For worker processes use FrameDataset"
            )
        pending: deque[PendingTargets] = deque()
        with TeacherStream(self._cache, self._window, self._options, self._device) as stream:
            for sample_tokens in self._batches:
                if len(pending) < self._options.look_ahead:
                    pending.append(stream.start(self._clips(sample_tokens)))
                    continue
                ready = stream.collect(pending.popleft())
                pending.append(stream.start(self._clips(sample_tokens)))
                yield ready
            while pending:
                yield stream.collect(pending.popleft())

    def _clips(self, sample_tokens: Sequence[str]) -> list[Clip]:
        if not 1 <= len(sample_tokens) <= self._window.batch_size:
            raise RecipeError(
                f"a batch of {len(sample_tokens)} sample tokens, expected 1 to {self._window.batch_size}: memory for "
                "the window's batch_size is set aside once; raise it, or make smaller batches"
            )
        places = [(token, *self._cache.place(token)) for token in sample_tokens]
        return [Clip(scene_name, (step,), (token,)) for token, scene_name, step in places]
