"""The losses of all decoder layers: sigmoid focal loss on classes, L1 on box codes, over matched queries.

As published, but for one thing: predictions that are NaN are an error. The original turns such a loss into zero, which
hides a training that has diverged.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from jaxtyping import Float32
from torch import Tensor
from torch.nn import functional

from detectors.config import LossConfig
from detectors.matching import match
from detectors.outputs import QueryOutputs
from detectors.targets import BoxTargets
from schemas.errors import NotFiniteError

CodeWeights = Float32[Tensor, "10"] | Float32[Tensor, "sample 10"]
"""Of the ten box code entries, for all samples alike or for each."""


def detection_losses(
    queries: QueryOutputs,
    targets: Sequence[BoxTargets],
    code_weights: CodeWeights,
    config: LossConfig,
) -> dict[str, Tensor]:
    """Weighted losses: ``loss_cls`` and ``loss_bbox`` of the last layer, ``d0.loss_cls`` ... of those before.

    Sums are divided by the number of matched objects in the batch, averaged over ranks, at least one.

    Raises:
        NotFiniteError: predictions are not finite, in this process or in one that trains together with it.
    """
    logits, boxes = queries.logits.float(), queries.boxes.float()
    _check_finite(logits, boxes)
    class_targets = torch.zeros_like(logits)
    distance = boxes.new_zeros(len(boxes))
    code_weights = code_weights.expand(len(targets), -1)
    matched = 0
    for sample, target in enumerate(targets):
        pairs = match(logits[:, sample], boxes[:, sample], target, config)
        matched += len(pairs[0][0])
        for layer, (query, annotated) in enumerate(pairs):
            chosen, given = torch.from_numpy(query).to(boxes.device), torch.from_numpy(annotated).to(boxes.device)
            class_targets[layer, sample, chosen, target.labels[given]] = 1
            errors = (boxes[layer, sample, chosen] - target.codes[given]).abs()
            distance[layer] = distance[layer] + (errors * code_weights[sample]).sum()
    normaliser = mean_over_ranks(boxes.new_tensor(float(matched))).clamp(min=1)
    focal = _sigmoid_focal(logits, class_targets, config).sum(dim=(1, 2, 3))
    losses = {}
    for layer in range(len(boxes)):
        prefix = "" if layer == len(boxes) - 1 else f"d{layer}."
        losses[f"{prefix}loss_cls"] = config.class_weight * focal[layer] / normaliser
        losses[f"{prefix}loss_bbox"] = config.box_weight * distance[layer] / normaliser
    return losses


def _check_finite(logits: Tensor, boxes: Tensor) -> None:
    bad = (~logits.isfinite()).sum() + (~boxes.isfinite()).sum()
    if mean_over_ranks(bad.float()) > 0:
        count = logits.numel() + boxes.numel()
        raise NotFiniteError(
            f"{int(bad)} of the detector's {count} predicted numbers are NaN or infinite"
            f"{'' if bad else ' here, but some are in another process'}, so they cannot be matched with annotations:"
            " training has diverged. Resume from the last checkpoint with a lower learning rate, a smaller"
            " gradient-clip norm, or in float32."
        )


def _sigmoid_focal(
    logits: Float32[Tensor, "*shape"], targets: Float32[Tensor, "*shape"], config: LossConfig
) -> Float32[Tensor, "*shape"]:
    """Lin et al., "Focal Loss for Dense Object Detection" (2017), equation 5, per entry."""
    p = logits.sigmoid()
    wrong = p + targets - 2 * p * targets
    balance = config.focal_alpha * targets + (1 - config.focal_alpha) * (1 - targets)
    entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return balance * wrong**config.focal_gamma * entropy


def mean_over_ranks(value: Float32[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    """The mean of numbers over all training processes, without gradient; the numbers themselves where there is one.

    All processes must ask for it, in one order. A sum over the objects of a process's batch divided by such a mean of
    their number has, averaged over processes as gradients are, the gradient of the whole batch in one process.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
