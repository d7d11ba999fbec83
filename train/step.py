"""One step of training: batches forward and backward, check, clip, update.

A step of several batches adds up their gradients, each batch's loss divided by their number. That is the step of one
big batch where a loss is a mean over samples. It differs from it where a batch is a unit of its own:

* detection losses are divided by the objects of their batch, so a batch with few of them counts as much as one with
  many; likewise every distiller's mean over foreground cells, and the last, smaller batch of an epoch;
* batch norms that train see one batch at a time;
* ``matched`` weighting (``train/loss_weighting.py``) takes every batch into account, and scales the next one by it;
* streams hand their memory from batch to batch, so a step of several batches runs on through its scenes.

Where several processes train together (``train/distributed.py``), a step is that of the batches of all.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import isfinite
from time import perf_counter

import torch
from torch import Tensor

from detectors.outputs import TemporalState
from schemas.errors import NotFiniteError, UserError
from train.batches import TrainingBatch
from train.checkpoint import TrainingState
from train.clips import ClipPosition
from train.distributed import gradients_kept
from train.whole_step import undone_if_refused


@dataclass(frozen=True)
class StepResult:
    """What one step did.

    Attributes:
        terms: weighted loss terms by name, means over the step's batches, of all processes; the loss is their sum.
        grad_norm: L2 norm of all gradients before clipping.
        seconds: ``data`` (waiting for batches, those of all processes), ``forward`` (its results waited for),
            ``backward`` (with the update).
        samples: supervised frames, of all processes.
        after: where the sequence of clips goes on.
        memory: what the last batch leaves for one that streams on from it.
    """

    terms: dict[str, float]
    grad_norm: float
    seconds: dict[str, float]
    samples: int
    after: ClipPosition
    memory: TemporalState


def train_step(
    state: TrainingState, batches: Iterator[TrainingBatch], left: TemporalState | None, accumulate: int, max_norm: float
) -> StepResult:
    """Change the learner by the next batches, at the learning rate that the optimiser holds.

    Args:
        state: what is changed; as it was before the step if this one fails by a ``UserError``.
        batches: what to learn from; each is done with before the next is taken.
        left: the memory that the batch before has left.
        accumulate: batches to take, at least 1.
        max_norm: gradients are scaled down to this norm.

    Raises:
        NotFiniteError: a prediction, a loss term or the gradients are not finite.
        UserError: a batch cannot be read.
    """
    seconds = dict.fromkeys(("data", "forward", "backward"), 0.0)
    terms: dict[str, float] = {}
    tokens: list[str] = []
    state.optimizer.zero_grad(set_to_none=True)
    with undone_if_refused(state):
        for number in range(accumulate):
            with _timed(seconds, "data"):
                batch = state.processes.together(lambda: next(batches))
            with nullcontext() if number == accumulate - 1 else gradients_kept(state.averaging):
                with _timed(seconds, "forward"):
                    loss, numbers, left = _forward(state, batch, left)
                with _timed(seconds, "backward"):
                    state.scaler.scale(loss / accumulate).backward()  # type: ignore[no-untyped-call]
            tokens += batch.sample_tokens
            for name, value in numbers.items():
                terms[name] = terms.get(name, 0.0) + value / accumulate
        with _timed(seconds, "backward"):
            grad_norm = _update(state, tokens, max_norm)
    assert left is not None
    return StepResult(terms, grad_norm, seconds, len(tokens) * state.processes.count, batch.after, left)


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    started = perf_counter()
    yield
    seconds[part] += perf_counter() - started


def _forward(
    state: TrainingState, batch: TrainingBatch, left: TemporalState | None
) -> tuple[Tensor, dict[str, float], TemporalState]:
    """The summed loss, and the terms of all processes as numbers: their transfer is also what waits for the device."""
    try:
        terms: dict[str, Tensor]
        memory: TemporalState
        terms, memory = (state.averaging or state.learner)(batch, left)
    except UserError as error:
        raise type(error)(f"{error} {_samples(batch.sample_tokens)}") from error
    stacked = torch.stack(list(terms.values()))
    by_rank = [dict(zip(terms, values, strict=True)) for values in state.processes.by_rank(stacked.tolist())]
    bad = [
        f"{name} is {value}" + (f" in process {rank}" if len(by_rank) > 1 else "")
        for rank, numbers in enumerate(by_rank)
        for name, value in numbers.items()
        if not isfinite(value)
    ]
    if bad:
        raise NotFiniteError(f"the loss is not finite: {', '.join(bad)}. {_advice(batch.sample_tokens)}")
    means = {name: sum(numbers[name] for numbers in by_rank) / len(by_rank) for name in terms}
    return stacked.sum(), means, memory


def _update(state: TrainingState, sample_tokens: Sequence[str], max_grad_norm: float) -> float:
    """Clip the gradients and update by them; returns their norm before."""
    state.scaler.unscale_(state.optimizer)
    grad_norm = float(torch.nn.utils.clip_grad_norm_(state.learner.parameters(), max_grad_norm))
    # A scaled float16 loss overflows now and then; its update is skipped and the scale lowered.
    if not isfinite(grad_norm) and not state.scaler.is_enabled():
        raise NotFiniteError(f"the gradients are not finite, though the loss is. {_advice(sample_tokens)}")
    state.scaler.step(state.optimizer)
    state.scaler.update()
    return grad_norm


def _advice(sample_tokens: Sequence[str]) -> str:
    return (
        f"{_samples(sample_tokens)} If these are sound, start afresh in another folder (OUT=...) with a lower "
        "training.optimizer.lr (e.g. --set student.training.optimizer.lr=1e-4), a smaller max_grad_norm, or in float32."
    )


def _samples(sample_tokens: Sequence[str]) -> str:
    return f"Samples: {', '.join(sample_tokens)}."
