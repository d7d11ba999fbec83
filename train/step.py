"""One step of training: forward, check, backward, clip, update."""

from dataclasses import dataclass
from math import isfinite
from time import perf_counter

import torch
from torch import Tensor

from detectors.outputs import TemporalState
from schemas.errors import UserError
from train.batches import TrainingBatch
from train.checkpoint import TrainingState


@dataclass(frozen=True)
class StepResult:
    """What one step did.

    Attributes:
        terms: weighted loss terms by name; the loss is their sum.
        grad_norm: L2 norm of all gradients before clipping.
        forward_s: seconds of the forward pass, its results waited for.
        backward_s: seconds of the backward pass and the update.
        memory: what the batch leaves for one that streams on from it.
    """

    terms: dict[str, float]
    grad_norm: float
    forward_s: float
    backward_s: float
    memory: TemporalState


def train_step(
    state: TrainingState, batch: TrainingBatch, left: TemporalState | None, max_grad_norm: float
) -> StepResult:
    """Change the learner by one batch, at the learning rate that the optimiser holds.

    Args:
        state: what is changed.
        batch: what to learn from.
        left: the memory that the batch before has left.
        max_grad_norm: gradients are scaled down to this norm.

    Raises:
        UserError: a prediction, a loss term or the gradients are not finite; parameters are left as they were.
    """
    started = perf_counter()
    loss, terms, memory = _forward(state, batch, left)
    forwarded = perf_counter()
    state.optimizer.zero_grad(set_to_none=True)
    state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    state.scaler.unscale_(state.optimizer)
    grad_norm = float(torch.nn.utils.clip_grad_norm_(state.learner.parameters(), max_grad_norm))
    # A scaled float16 loss overflows now and then; its update is skipped and the scale lowered.
    if not isfinite(grad_norm) and not state.scaler.is_enabled():
        raise UserError(f"the gradients are not finite, though the loss is. {_advice(batch)}")
    state.scaler.step(state.optimizer)
    state.scaler.update()
    return StepResult(terms, grad_norm, forwarded - started, perf_counter() - forwarded, memory)


def _forward(
    state: TrainingState, batch: TrainingBatch, left: TemporalState | None
) -> tuple[Tensor, dict[str, float], TemporalState]:
    """The summed loss, and its terms as numbers: their one transfer is also what waits for the device."""
    try:
        terms: dict[str, Tensor]
        memory: TemporalState
        terms, memory = state.learner(batch, left)
    except UserError as error:
        raise type(error)(f"{error} {_samples(batch)}") from error
    stacked = torch.stack(list(terms.values()))
    numbers = dict(zip(terms, stacked.tolist(), strict=True))
    bad = ", ".join(f"{name} is {value}" for name, value in numbers.items() if not isfinite(value))
    if bad:
        raise UserError(f"the loss is not finite: {bad}. {_advice(batch)}")
    return stacked.sum(), numbers, memory


def _advice(batch: TrainingBatch) -> str:
    return (
        f"{_samples(batch)} If these are sound, start afresh in another folder (OUT=...) with a lower "
        "training.optimizer.lr (e.g. --set student.training.optimizer.lr=1e-4), a smaller max_grad_norm, or in float32."
    )


def _samples(batch: TrainingBatch) -> str:
    return f"Samples: {', '.join(batch.sample_tokens)}."
