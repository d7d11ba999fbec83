"""A ring of preallocated places for cached targets.

Fresh memory would cost more than the read: page faults, and on CUDA the registration of pinned pages.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.features import StoredArray


@dataclass(eq=False)
class Slot:
    """Room for the targets of one batch.

    Attributes:
        arrays: ``(batch, frame, ...)`` by stored array name, pinned on CUDA.
        memory: the same memory, for the threads that fill it.
        crossed: on CUDA, happens when the last copy to the device has left this slot.
    """

    arrays: Mapping[str, Tensor]
    memory: Mapping[str, NDArray[Any]]
    crossed: torch.cuda.Event | None = None


class SlotRing:
    """The slots that nobody fills or reads at the moment.

    Args:
        arrays: what a slot holds of one frame.
        leading: ``(batch, frame)`` sizes before each array's own.
        slots: how many.
        pinned: page-locked memory, for copies to a CUDA device beside its computing.
    """

    def __init__(self, arrays: Iterable[StoredArray], leading: tuple[int, int], slots: int, *, pinned: bool) -> None:
        arrays = tuple(arrays)
        self._free: deque[Slot] = deque()
        for _ in range(slots):
            room = {
                array.name: torch.zeros((*leading, *array.shape), dtype=getattr(torch, array.dtype), pin_memory=pinned)
                for array in arrays
            }
            self._free.append(Slot(room, {name: values.numpy() for name, values in room.items()}))

    def acquire(self) -> Slot:
        """The slot that has been free longest; its last copy to the device has finished."""
        assert self._free, "more batches pending than there are slots"
        slot = self._free.popleft()
        if slot.crossed is not None:
            slot.crossed.synchronize()
            slot.crossed = None
        return slot

    def release(self, slot: Slot) -> None:
        """Give a slot back."""
        self._free.append(slot)
