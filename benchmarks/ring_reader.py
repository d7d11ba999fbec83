"""The plainest ring of buffers filled by threads: what a peer's reader, or bare ``preadv``, is given to fill."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from numpy.typing import NDArray

from schemas.features import StoredArray
from train.clips import Clip
from train.ring import Slot, SlotRing

Fill = Callable[[Clip, dict[str, NDArray[Any]]], None]
"""Reads a clip into ``(frames, ...)`` arrays by name."""


class RingReader:
    """Fills preallocated clips in threads, and touches one number of each when it is there.

    Args:
        arrays: what a frame consists of.
        frames: in a clip.
        threads: that read.
        ahead: clips in preparation while one is looked at.
        fill: reads one clip.
    """

    def __init__(self, arrays: Iterable[StoredArray], frames: int, threads: int, ahead: int, fill: Fill) -> None:
        self._ring = SlotRing(arrays, (1, frames), slots=ahead + 1, pinned=False)
        self._threads = ThreadPoolExecutor(threads)
        self._ahead, self._fill = ahead, fill

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    def read(self, clips: Sequence[Clip]) -> int:
        """All clips, in order; returns the sum of what it touched, so that it did."""
        pending: deque[tuple[Slot, Future[None]]] = deque()
        touched = 0
        for clip in clips:
            slot = self._ring.acquire()
            into = {name: values[0].numpy() for name, values in slot.arrays.items()}
            pending.append((slot, self._threads.submit(self._fill, clip, into)))
            if len(pending) > self._ahead:
                touched += self._collect(*pending.popleft())
        return touched + sum(self._collect(*one) for one in pending)

    def _collect(self, slot: Slot, read: "Future[None]") -> int:
        read.result()
        touched = int(slot.arrays["bev"].view(-1)[0])
        self._ring.release(slot)
        return touched
