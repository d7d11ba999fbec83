"""AdamW with the published parameter groups, and the learning rate as a plain function of the step."""

from fractions import Fraction
from math import cos, pi

import torch
from torch import nn

from train.options import OptimizerOptions

BACKBONE = "img_backbone."


def build_optimizer(detector: nn.Module, distillers: nn.Module, options: OptimizerOptions) -> torch.optim.AdamW:
    """AdamW over everything that trains; each group keeps its learning rate's factor as ``lr_factor``.

    Args:
        detector: parameters whose names start with ``img_backbone.`` get ``backbone_lr_factor``.
        distillers: their training-only modules learn at the full rate.
        options: learning rate and weight decay.
    """
    named = [(name, parameter) for name, parameter in detector.named_parameters() if parameter.requires_grad]
    backbone = [parameter for name, parameter in named if name.startswith(BACKBONE)]
    others = [parameter for name, parameter in named if not name.startswith(BACKBONE)]
    others += [parameter for parameter in distillers.parameters() if parameter.requires_grad]
    groups = [
        {"params": others, "lr_factor": 1.0, "name": "main"},
        {"params": backbone, "lr_factor": options.backbone_lr_factor, "name": "backbone"},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=options.lr, weight_decay=options.weight_decay)


def learning_rate(step: int, steps: int, steps_per_epoch: Fraction | int, options: OptimizerOptions) -> float:
    """Learning rate of the main group: cosine from lr to floor · lr over the run, under a linear warm-up.

        cosine(p)  = floor + (1 − floor) · (1 + cos(π p)) / 2      p = progress in [0, 1]
        warm-up(s) = 1 − (1 − s / warmup_steps) · (1 − warmup_from)

    Args:
        step: 0-based.
        steps: length of the run.
        steps_per_epoch: for the published schedule, whose progress moves at epoch starts only; a fraction where a step
            takes several batches and may span two epochs.
        options: the numbers above.
    """
    reached = step if options.cosine == "per-step" else step // steps_per_epoch * steps_per_epoch
    progress = min(reached / steps, 1.0)
    rate = options.lr * (options.floor + (1 - options.floor) * (1 + cos(pi * progress)) / 2)
    if step < options.warmup_steps:
        rate *= 1 - (1 - step / options.warmup_steps) * (1 - options.warmup_from)
    return rate


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group the rate times its ``lr_factor``."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]
