"""A step happens wholly or not at all, so that what is saved after an error is the state after the last whole one."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from schemas.errors import UserError
from train.checkpoint import TrainingState
from train.random_streams import RandomStreams


@contextmanager
def undone_if_refused(state: TrainingState) -> Iterator[None]:
    """Put back, when the block raises a ``UserError``, what forward passes change: buffers and random streams.

    Parameters and the optimiser's moments are changed by the last act of a step alone, which raises none.
    """
    before = {name: buffer.clone() for name, buffer in state.learner.named_buffers()}
    random = RandomStreams.of(state.device)
    try:
        yield
    except UserError:
        with torch.no_grad():
            for name, buffer in state.learner.named_buffers():
                buffer.copy_(before[name])
        random.restore(state.device)
        raise
