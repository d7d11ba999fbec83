"""Weights in and out: published PyTorch checkpoints and our own safetensors. Loading never runs code of a file."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from detectors.catalogue import DETECTORS, build
from detectors.weights_file import read_weights_file
from schemas.errors import CheckpointError

COUNTER = "num_batches_tracked"
"""A batch norm's counter. Old checkpoints lack it and nothing here reads it, so its absence is no difference."""

_NAMES_SHOWN = 3


@dataclass(frozen=True)
class ShapeDifference:
    """An entry that has one shape in the file and another in the model."""

    name: str
    in_file: tuple[int, ...]
    in_model: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {list(self.in_file)} instead of {list(self.in_model)}"


@dataclass(frozen=True)
class LoadReport:
    """How a weights file and a model fit.

    Attributes:
        path: the file.
        matched: entries with the same name and shape in both, which is what was loaded.
        missing: the model has them, the file does not.
        unexpected: the file has them, the model does not.
        reshaped: both have them, in different shapes.
    """

    path: Path
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[ShapeDifference, ...]

    @property
    def is_complete(self) -> bool:
        """Whether file and model hold the same entries."""
        return not (self.missing or self.unexpected or self.reshaped)

    def __str__(self) -> str:
        lines = [f"{self.path}: {len(self.matched)} entries matched"]
        for words, entries in (
            ("missing from the file", self.missing),
            ("unexpected in the file", self.unexpected),
            ("of another shape", self.reshaped),
        ):
            if entries:
                shown = ", ".join(str(entry) for entry in entries[:_NAMES_SHOWN])
                more = ", ..." if len(entries) > _NAMES_SHOWN else ""
                lines.append(f"  {len(entries)} {words}: {shown}{more}")
        return "\n".join(lines)


def load_weights(
    model: nn.Module, path: Path, allow_partial: bool = False, instead: str = "load what fits with --allow-partial"
) -> LoadReport:
    """Fill a model's parameters and buffers from a file, casting to the model's precision.

    Args:
        model: changed in place, and only if the file is accepted.
        path: ``.safetensors``, or a PyTorch checkpoint: a dict of tensors, alone or under ``state_dict``. Old DCN
            names (``conv2_offset``) and a ``module.`` prefix are understood.
        allow_partial: load what fits even if entries are missing, unexpected or of another shape.
        instead: what the caller offers to do with a file that does not fit, for the message.

    Raises:
        CheckpointError: the file is absent, damaged, not a checkpoint, needs code to be read, holds numbers that are
            not finite, or does not fit the model.
    """
    entries = read_weights_file(path)
    state = model.state_dict()
    report = compare(state, entries, path)
    if not report.matched or not (report.is_complete or allow_partial):
        raise CheckpointError(f"{_refusal(report, entries)}, or {instead}.")
    copy_entries(state, entries, report.matched, path)
    return report


def save_weights(model: nn.Module, path: Path) -> None:
    """Write all parameters and buffers as safetensors: the file is whole or absent, whatever interrupts."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    try:
        with unfinished.open("wb") as file:  # safetensors' own writing makes files that no one else may read
            file.write(save(tensors, metadata={"format": "pt"}))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def compare(state: Mapping[str, Tensor], entries: Mapping[str, Tensor], path: Path) -> LoadReport:
    """How the entries of a model and of a file fit; nothing is changed."""
    common = [name for name in state if name in entries]
    return LoadReport(
        path=path,
        matched=tuple(name for name in common if state[name].shape == entries[name].shape),
        missing=tuple(name for name in state if name not in entries and not name.endswith(COUNTER)),
        unexpected=tuple(name for name in entries if name not in state),
        reshaped=tuple(
            ShapeDifference(name, tuple(entries[name].shape), tuple(state[name].shape))
            for name in common
            if state[name].shape != entries[name].shape
        ),
    )


def copy_entries(state: Mapping[str, Tensor], entries: Mapping[str, Tensor], names: Iterable[str], path: Path) -> None:
    """Fill these entries of a model's state from a file's: all of them, or none where one is not finite.

    Raises:
        CheckpointError: an entry holds NaN or infinite numbers.
    """
    chosen = list(names)
    for name in chosen:
        if entries[name].is_floating_point() and not torch.isfinite(entries[name]).all():
            raise CheckpointError(
                f"{path}: {name} holds NaN or infinite numbers, so the training that wrote it had diverged. "
                "Use an earlier checkpoint."
            )
    with torch.no_grad():
        for name in chosen:
            state[name].copy_(entries[name])


def _refusal(report: LoadReport, entries: Mapping[str, Tensor]) -> str:
    name, matched = _closest_detector(entries, report.path)
    if 2 * matched > len(entries):
        advice = f"It looks like {name} ({matched} of its {len(entries)} entries fit): choose that detector"
    else:
        advice = "It looks like no detector of detectors/catalogue.py: choose a file made for this one"
    return f"The weights are not those of this detector.\n{report}\n{advice}"


def _closest_detector(entries: Mapping[str, Tensor], path: Path) -> tuple[str, int]:
    """The catalogue's detector that shares most entries with a file, and how many."""
    matches = {}
    for name, config in DETECTORS.items():
        with torch.device("meta"):
            matches[name] = len(compare(build(config()).state_dict(), entries, path).matched)
    best = max(matches, key=lambda name: matches[name])
    return best, matches[best]
