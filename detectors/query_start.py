"""What the decoder starts from, and how its layers' outputs build on each other."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from detectors.box_code import from_ray_frame


@dataclass(frozen=True, eq=False)
class FirstGuess:
    """A classification and a box that a decoder layer corrects; no gradient flows into them.

    Attributes:
        logits: class logits.
        boxes: box codes.
    """

    logits: Float32[Tensor, "batch query class"]
    boxes: Float32[Tensor, "batch query 10"]

    def corrected(
        self, logits: Float32[Tensor, "batch query class"], change: Float32[Tensor, "batch query 10"]
    ) -> tuple[Float32[Tensor, "batch query class"], Float32[Tensor, "batch query 10"]]:
        """Branch outputs added to the guess; yaw and velocity are corrected relative to the viewing ray.

        The centre's entries are left alone: reference points are what corrects them (``box_code.refine``).
        """
        change = from_ray_frame(change, self.boxes[..., :2])
        base = torch.cat([torch.zeros_like(self.boxes[..., :2]), self.boxes[..., 2:]], dim=-1)
        base[..., 4] = 0
        return self.logits + logits, base + change


@dataclass(frozen=True, eq=False)
class QueryStart:
    """Initial object queries.

    Attributes:
        content: hidden states.
        position: position embeddings.
        reference: normalised (x, y, z).
        guess: first logits and boxes, where the decoder corrects rather than predicts.
    """

    content: Float[Tensor, "batch query channel"]
    position: Float[Tensor, "batch query channel"]
    reference: Float32[Tensor, "batch query 3"]
    guess: FirstGuess | None = None
