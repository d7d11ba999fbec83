"""The random numbers that training draws, as a state that can be kept and put back."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class RandomStreams:
    """Where torch's global random streams stand: dropout draws from no other.

    Attributes:
        cpu: of the CPU.
        cuda: of the training device, where that is a GPU.
    """

    cpu: Tensor
    cuda: Tensor | None

    @classmethod
    def of(cls, device: torch.device) -> "RandomStreams":
        """The streams as they stand now, for training on ``device``."""
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None)

    def restore(self, device: torch.device) -> None:
        """Go on from here. A GPU's stream is left alone where none was kept."""
        torch.set_rng_state(self.cpu)
        if device.type == "cuda" and self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda, device)
