"""Masked generation: hide part of the student's features and rebuild the teacher's from what is left.

Source: MGD (Yang et al., ECCV 2022): a random share of the cells is set to zero, all channels of a cell alike, then
convolution 3×3, ReLU, convolution 3×3, as in its code. Object queries have no neighbours, so theirs are linear layers
with a ReLU between.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from detectors.detection_loss import mean_over_ranks


def bev_generator(channels: int) -> nn.Sequential:
    """3×3 convolution, ReLU, 3×3 convolution, all of this many channels."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel_size=3, padding=1),
    )


def query_generator(channels: int) -> nn.Sequential:
    """Linear layer, ReLU, linear layer, all of this many channels."""
    return nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels))


def kept(shape: tuple[int, ...], mask_ratio: float, like: Tensor) -> Float[Tensor, "*shape"]:
    """Ones for places that stay, zeros for those hidden, each drawn on its own.

    Drawn from torch's global random stream, as dropout is: a run's seed sets it and its checkpoints keep it.

    Args:
        shape: of the result.
        mask_ratio: chance of each place to be hidden.
        like: sets device and dtype.
    """
    return (torch.rand(shape, device=like.device) >= mask_ratio).to(like.dtype)


class MaskedReconstruction(nn.Module):
    """Mean squared error between a target and what the generator makes of masked student features.

    Args:
        adapter: student channels to teacher channels.
        generator: one of the two above.
        mask_ratio: chance of each place to be hidden.
        hidden_only: compare only what was hidden, instead of everything as in MGD.
    """

    def __init__(self, adapter: nn.Module, generator: nn.Module, mask_ratio: float, *, hidden_only: bool) -> None:
        super().__init__()
        self.adapter, self.generator = adapter, generator
        self.mask_ratio, self.hidden_only = mask_ratio, hidden_only

    def forward(
        self, student: Float[Tensor, "..."], target: Float[Tensor, "..."], places: tuple[int, ...]
    ) -> Float[Tensor, ""]:
        """The loss.

        Args:
            student: features, shaped as the adapter takes them.
            target: without gradient, shaped as the generator gives them.
            places: shape of the mask; broadcasts over the target's channels.
        """
        keep = kept(places, self.mask_ratio, target)
        error: Tensor = (self.generator(keep * self.adapter(student)) - target).square()
        if not self.hidden_only:
            return error.mean()
        hidden = (1 - keep).expand_as(error)
        return (hidden * error).sum() / mean_over_ranks(hidden.sum()).clamp(min=1)
