"""One thread behind the forward pass: it waits for a frame's bytes, appends them, and commits the scene.

The forward pass waits for it only when ``frames`` of them are in the queue, so that memory does not depend on how long
a scene is, nor on how slow the disk.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import pyarrow as pa
import torch
from torch import Tensor

from cache.writing import SceneWriter
from pipeline.teacher_stage.quantise import StoredFrame, refuse_unfit
from schemas.errors import CacheError
from schemas.features import FeatureSpec, Tier


class WriteQueue:
    """The writer thread of one process. Use it as a context manager, which waits for everything that was queued.

    Args:
        specs: the features of the cache.
        tier: its storage tier.
        frames: most frames in the queue.
    """

    def __init__(self, specs: Sequence[FeatureSpec], tier: Tier, frames: int) -> None:
        self.specs, self.tier, self.frames = tuple(specs), tier, frames
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cache-writer")
        self._buffers: deque[dict[str, Tensor]] = deque()

    def __enter__(self) -> "WriteQueue":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)

    def scene(self, writer: SceneWriter) -> "QueuedScene":
        """A scene whose frames pass through this queue, to be used in a ``with`` statement."""
        return QueuedScene(self, writer, self._thread)

    def to_host(self, frame: StoredFrame) -> tuple[StoredFrame, torch.cuda.Event | None]:
        """Start the copy of a frame to page-locked memory.

        Returns:
            The frame on the host, and the event that completes it; no event where the frame is there already.
        """
        if frame.extremes.device.type == "cpu":
            return frame, None
        tensors = {**frame.arrays, "": frame.extremes}  # no array has an empty name
        room = self._buffers.popleft() if self._buffers else _pinned_like(tensors)
        for name, tensor in tensors.items():
            room[name].copy_(tensor, non_blocking=True)
        event = torch.cuda.current_stream(frame.extremes.device).record_event()
        return StoredFrame({name: room[name] for name in frame.arrays}, room[""]), event

    def give_back(self, frame: StoredFrame) -> None:
        """The frame's page-locked memory may hold another."""
        self._buffers.append({**frame.arrays, "": frame.extremes})


class QueuedScene:
    """Appends and commits one scene in the queue's thread. Leaving it without a commit leaves nothing in the cache."""

    def __init__(self, queue: WriteQueue, writer: SceneWriter, thread: ThreadPoolExecutor) -> None:
        self._queue, self._writer, self._thread = queue, writer, thread
        self._pending: deque[Future[None]] = deque()
        self._step = 0
        self._committing = False

    def __enter__(self) -> "QueuedScene":
        self._pending.append(self._thread.submit(self._begin))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._committing:
            self._thread.submit(self._writer.__exit__, None, None, None).result()

    def append(self, frame: StoredFrame) -> None:
        """Queue the next frame, waiting while the queue is full.

        Raises:
            CacheError: an earlier frame of the scene was not fit to be stored, or the disk refused it.
        """
        on_host, copied = self._queue.to_host(frame)
        self._pending.append(self._thread.submit(self._append, self._step, on_host, copied))
        self._step += 1
        while len(self._pending) > self._queue.frames:
            self._pending.popleft().result()

    def commit(self, rows: pa.Table) -> Future[bool]:
        """Queue the commit, behind the frames. The next scene may begin at once.

        Args:
            rows: the scene's frames in ``FRAME_SCHEMA``.

        Returns:
            As ``SceneWriter.commit``; it also raises what a frame still in the queue raised.
        """
        self._committing = True
        return self._thread.submit(self._commit, rows)

    def _begin(self) -> None:
        self._writer.__enter__()

    def _append(self, step: int, frame: StoredFrame, copied: torch.cuda.Event | None) -> None:
        if copied is not None:
            copied.synchronize()
        try:
            refuse_unfit(self._queue.specs, frame, self._queue.tier)
        except CacheError as error:
            raise CacheError(f"scene {self._writer.slot.name}, step {step}: {error}") from error
        self._writer.append_stored(frame.on_host())
        if copied is not None:
            self._queue.give_back(frame)

    def _commit(self, rows: pa.Table) -> bool:
        try:
            for done in self._pending:  # all of them ended before this began: the thread is one
                done.result()
            return self._writer.commit(rows)
        finally:
            self._writer.__exit__(None, None, None)


def _pinned_like(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for name, tensor in tensors.items()}
