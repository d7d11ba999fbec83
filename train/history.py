"""The student's memory: history frames seen before the supervised ones, or what the batch before left; no gradient.

A batch's clips may differ in length (a scene's start), so an early history step concerns only some of its samples.
``rearranged`` gives the later ones a blank memory, which a detector takes for the start of a scene.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from detectors.bevformer import BEVFormer
from detectors.outputs import TemporalState
from train.batches import HistoryStep, TrainingBatch

NO_SCENE = ""
"""Scene token of a blank memory: no scene has it, so every detector starts afresh."""


def encode_history(detector: BEVFormer, history: Sequence[HistoryStep], batch_size: int) -> TemporalState | None:
    """Carry the memory through the history frames, as published: in evaluation mode and without gradient.

    Args:
        detector: left in the mode it was in.
        history: oldest first.
        batch_size: samples in the batch.

    Returns:
        The memory of all samples, blank for those without history; None when none has any.
    """
    state: TemporalState | None = None
    known: tuple[int, ...] = ()
    with torch.no_grad(), evaluating(detector):
        for step in history:
            if state is not None and step.samples != known:
                state = rearranged(state, [known.index(s) if s in known else None for s in step.samples])
            state = detector.encode(step.cameras, state)
            known = step.samples
    if state is None or len(known) == batch_size:
        return state
    return rearranged(state, [known.index(sample) if sample in known else None for sample in range(batch_size)])


def carried_over(left: TemporalState | None, batch: TrainingBatch) -> TemporalState | None:
    """The memory for a batch that streams on from the one before.

    Args:
        left: the memory that the batch before left.
        batch: its samples that continue find their memory by their scene; the others get a blank one.

    Returns:
        The memory of all samples; None when none continues.
    """
    if left is None or not any(batch.continues):
        return None
    places = {token: row for row, token in enumerate(left.scene_tokens)}
    scenes = zip(batch.current.scene_tokens, batch.continues, strict=True)
    return rearranged(left, [places[token] if continues else None for token, continues in scenes])


def rearranged(state: TemporalState, rows: Sequence[int | None]) -> TemporalState:
    """A memory with these rows of ``state``, in this order; None is a blank one."""
    indices = torch.tensor([row or 0 for row in rows], device=state.bev.device)
    return TemporalState(
        bev=state.bev[indices],
        position_m=state.position_m[indices],
        yaw_deg=state.yaw_deg[indices],
        scene_tokens=tuple(NO_SCENE if row is None else state.scene_tokens[row] for row in rows),
    )


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode within the block; every submodule's own mode is put back afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
