"""An average of the weights over the course of training, which often scores better than the last weights.

    average ← d · average + (1 − d) · weights        after every optimiser step
    d       = min(decay, (1 + n) / (10 + n))         n: steps averaged before this one

The average begins as a copy of the weights after the first step. The decay is warmed up, as is usual since TensorFlow's
``ExponentialMovingAverage``, for otherwise a decay of 0.9998 would remember the random beginning for tens of thousands
of steps. Buffers (running statistics of batch norms) are copied, not averaged: they are averages already.

``torch.optim.swa_utils.AveragedModel`` does all this but for the warm-up, which its averaging function can take.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def averaged(module: nn.Module, decay: float) -> AveragedModel:
    """A copy of a module that ``update_parameters(module)`` makes the average of all it has been called with.

    Its state dict holds the average and how many steps are in it. Training draws and computes the same with it as
    without.

    Args:
        module: as training begins with it: built, initialised, on its device.
        decay: in (0, 1); what remains of the average at a step, once warmed up.
    """

    def towards(average: Sequence[Tensor], weights: Sequence[Tensor], steps: Tensor | int) -> None:
        move = get_ema_multi_avg_fn(warmed_up(decay, int(steps)))  # type: ignore[no-untyped-call]
        move(list(average), list(weights), steps)

    average = AveragedModel(module, multi_avg_fn=towards)
    average.requires_grad_(requires_grad=False)
    return average


def warmed_up(decay: float, steps: int) -> float:
    """The decay when this many steps are in the average."""
    return min(decay, (1 + steps) / (10 + steps))
