"""Save and restore everything a run needs to go on as if it had never stopped."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from detectors.outputs import TemporalState
from schemas.errors import CheckpointError
from schemas.manifest import differing_fields
from train.clips import ClipPosition
from train.distributed import ALONE, Processes
from train.random_streams import RandomStreams

FORMAT = "bev-teacher-cache training state 2"

Identity = Mapping[str, Any]
"""What a checkpoint belongs to, as plain JSON values: detector, options, data set, cache, number of processes."""

ProcessPart = Mapping[str, Any]
"""What each process has of its own in a checkpoint: where its clips go on, its memory, its random streams."""


@dataclass(frozen=True, eq=False)
class TrainingState:
    """The parts that training changes.

    Attributes:
        learner: detector and distillers.
        optimizer: with its moments. The learning rate is a function of the step and needs no state.
        scaler: of float16 losses; inert otherwise.
        device: whose random streams are kept.
        average: of the detector's weights, where one is kept (``train/ema.py``).
        processes: who changes it together.
        averaging: called in the learner's place where several do, for it averages their gradients.
    """

    learner: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    device: torch.device
    average: AveragedModel | None = None
    processes: Processes = ALONE
    averaging: nn.Module | None = None


@dataclass(frozen=True, eq=False)
class Progress:
    """How far a run has come.

    Attributes:
        step: steps done.
        position: where the sequence of clips goes on.
        memory: what the last batch left for one that streams on from it; None before the first step.
    """

    step: int = 0
    position: ClipPosition = field(default_factory=ClipPosition)
    memory: TemporalState | None = None


def process_part(state: TrainingState, progress: Progress) -> ProcessPart:
    """What this process has of its own, on the CPU."""
    random = RandomStreams.of(state.device)
    memory = None if progress.memory is None else progress.memory.to(torch.device("cpu"))
    return {
        "epoch": progress.position.epoch,
        "position": progress.position.position,
        "memory": None if memory is None else vars(memory),
        "random_cpu": random.cpu,
        "random_cuda": random.cuda,
    }


def save_checkpoint(
    path: Path, state: TrainingState, progress: Progress, identity: Identity, others: Sequence[ProcessPart] = ()
) -> None:
    """Write a checkpoint; the caller sees to it that the name becomes visible at once.

    Args:
        path: the file.
        state: what training has changed.
        progress: how far it has come.
        identity: what it belongs to.
        others: the parts of the other processes that train with this one, the first, in the order of their ranks.

    Raises:
        OSError: the disk refuses.
    """
    content = {
        "format": FORMAT,
        "identity": json.dumps(identity),
        "step": progress.step,
        "learner": state.learner.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "average": None if state.average is None else state.average.state_dict(),
        "others": list(others),
        **process_part(state, progress),
    }
    with path.open("wb") as file:  # through a file object a full disk is an OSError, not an internal error of torch
        torch.save(content, file)


def load_checkpoint(path: Path, state: TrainingState, identity: Identity) -> Progress:
    """Put a checkpoint back, in place. Processes that train together read the same file, each its own part of it.

    Args:
        path: the file.
        state: what to restore; built as for a new run.
        identity: what the run is now.

    Returns:
        How far the run had come.

    Raises:
        CheckpointError: it cannot be read, or it belongs to another detector, recipe, data set or cache, or to more or
            fewer processes: every differing field is named with both values. Or another program wrote it, whose
            networks of these options had other parameters.
    """
    content = _read(path)
    _compare(path, content, identity)
    _restore(path, state, content)
    own = content if state.processes.is_first else content["others"][state.processes.rank - 1]
    RandomStreams(own["random_cpu"], own["random_cuda"]).restore(state.device)
    memory = None if own["memory"] is None else TemporalState(**own["memory"]).to(state.device)
    return Progress(content["step"], ClipPosition(own["epoch"], own["position"]), memory)


def _restore(path: Path, state: TrainingState, content: Mapping[str, Any]) -> None:
    try:
        state.learner.load_state_dict(content["learner"])
        state.optimizer.load_state_dict(content["optimizer"])
        state.scaler.load_state_dict(content["scaler"])
        if state.average is not None:
            state.average.load_state_dict(content["average"])
    except (RuntimeError, ValueError) as error:  # torch's words for names, shapes and groups that differ
        raise CheckpointError(
            f"{path} has the options of this run, but other parameters than this program's networks have: another "
            f"version of the program wrote it.\n{error}\n"
            "Go on with that version, remove the file to start afresh, or choose another folder with OUT=..."
        ) from error


def check_identity(path: Path, identity: Identity) -> None:
    """Refuse a checkpoint of another run, before anything is made ready to go on from it.

    Raises:
        CheckpointError: as ``load_checkpoint``.
    """
    _compare(path, _read(path), identity)


def _compare(path: Path, content: Mapping[str, Any], identity: Identity) -> None:
    differing = differing_fields(identity, {"processes": 1} | json.loads(content["identity"]))
    if differing:
        lines = "\n".join(f"  {name}: {ours!r} now, {theirs!r} in the checkpoint" for name, ours, theirs in differing)
        raise CheckpointError(
            f"{path} was written by another run and cannot be continued with these options:\n{lines}\n"
            "Give the options it was started with (--recipe with the recipe.yaml beside it), as many processes "
            "(torchrun --nproc-per-node N, or no torchrun for one), or start afresh in another folder with OUT=..."
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a training state ({str(error).partition(chr(10))[0]}). "
            "Remove it to start afresh, or restore it from a copy."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format", "none stated") if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(
            f"{path} is no training state of this program: expected format {FORMAT!r}, got {found!r}. "
            "Remove it to start afresh, or choose another folder with OUT=..."
        )
    return content
