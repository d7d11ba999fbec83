"""Weights in and out: published PyTorch checkpoints and our own safetensors. Loading never runs code of a file."""

import os
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from detectors.catalogue import DETECTORS, build
from schemas.errors import CheckpointError

COUNTER = "num_batches_tracked"
"""A batch norm's counter. Old checkpoints lack it and nothing here reads it, so its absence is no difference."""

_NAMES_SHOWN = 3
_BEFORE_TORCH_1_6 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


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


def load_weights(model: nn.Module, path: Path, allow_partial: bool = False) -> LoadReport:
    """Fill a model's parameters and buffers from a file, casting to the model's precision.

    Args:
        model: changed in place, and only if the file is accepted.
        path: ``.safetensors``, or a PyTorch checkpoint: a dict of tensors, alone or under ``state_dict``. Old DCN
            names (``conv2_offset``) and a ``module.`` prefix are understood.
        allow_partial: load what fits even if entries are missing, unexpected or of another shape.

    Raises:
        CheckpointError: the file is absent, damaged, not a checkpoint, needs code to be read, holds numbers that are
            not finite, or does not fit the model.
    """
    entries = _todays_names(_read(path), path)
    state = model.state_dict()
    report = _compare(state, entries, path)
    if not report.matched or not (report.is_complete or allow_partial):
        raise CheckpointError(_refusal(report, entries))
    for name in report.matched:
        if entries[name].is_floating_point() and not torch.isfinite(entries[name]).all():
            raise CheckpointError(
                f"{path}: {name} holds NaN or infinite numbers, so the training that wrote it had diverged. "
                "Use an earlier checkpoint."
            )
    with torch.no_grad():
        for name in report.matched:
            state[name].copy_(entries[name])
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


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(
            f"{path}: there is no such weights file. Published files are named, with their address, in "
            "detectors/catalogue.py."
        )
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _read_checkpoint(path)
    except (pickle.UnpicklingError, zipfile.BadZipFile, SafetensorError, OSError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(
            f"{path}: expected safetensors or a PyTorch checkpoint, but the file cannot be read as one ({reason}). "
            "It may be damaged or half downloaded: fetch it again."
        ) from error
    return _tensors_in(content, path)


def _read_checkpoint(path: Path) -> object:
    """What ``torch.save`` wrote, with checksums verified and anything but tensors and plain values refused."""
    with path.open("rb") as file:
        if file.read(len(_BEFORE_TORCH_1_6)) == _BEFORE_TORCH_1_6:
            raise CheckpointError(
                f"{path}: expected the zip form that PyTorch writes since 1.6, got the one before it, which has no "
                "checksums. Convert it: torch.save(torch.load(FILE, weights_only=True), NEW_FILE)."
            )
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()  # the memory map below would not notice
    if damaged is not None:
        raise zipfile.BadZipFile(f"bad checksum of {damaged}")
    foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    if foreign:
        raise CheckpointError(
            f"{path}: expected tensors and plain values only, but reading {', '.join(sorted(foreign))} in it would run "
            "code. Nothing was run. Where you trust the file, save its state_dict alone: "
            'torch.save({"state_dict": torch.load(FILE, weights_only=False)["state_dict"]}, NEW_FILE).'
        )
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _tensors_in(content: object, path: Path) -> dict[str, Tensor]:
    state_dict = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(state_dict, Mapping) or not state_dict:
        raise CheckpointError(
            f"{path}: expected a dict of tensors, alone or under 'state_dict', got "
            f"{'an empty dict' if isinstance(state_dict, Mapping) else type(state_dict).__name__}."
        )
    tensors = {str(name): value for name, value in state_dict.items() if isinstance(value, Tensor)}
    if len(tensors) < len(state_dict):
        name, value = next((name, value) for name, value in state_dict.items() if not isinstance(value, Tensor))
        raise CheckpointError(
            f"{path}: expected every entry to be a tensor, but {name!r} is {type(value).__name__}. "
            "If it is a run's last.pt, give weights.safetensors beside it; if the weights lie deeper in this file, "
            "save them again as {'state_dict': weights}."
        )
    return tensors


def _todays_names(entries: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    prefix = "module." if all(name.startswith("module.") for name in entries) else ""
    renamed = {
        name.removeprefix(prefix).replace("conv2_offset.", "conv2.conv_offset."): tensor
        for name, tensor in entries.items()
    }
    if len(renamed) < len(entries):
        raise CheckpointError(f"{path}: some entries are there twice, as conv2_offset and as conv2.conv_offset.")
    return renamed


def _compare(state: Mapping[str, Tensor], entries: Mapping[str, Tensor], path: Path) -> LoadReport:
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


def _refusal(report: LoadReport, entries: Mapping[str, Tensor]) -> str:
    name, matched = _closest_detector(entries, report.path)
    if 2 * matched > len(entries):
        advice = f"It looks like {name} ({matched} of its {len(entries)} entries fit): choose that detector"
    else:
        advice = "It looks like no detector of detectors/catalogue.py: choose a file made for this one"
    return f"The weights are not those of this detector.\n{report}\n{advice}, or load what fits with --allow-partial."


def _closest_detector(entries: Mapping[str, Tensor], path: Path) -> tuple[str, int]:
    """The catalogue's detector that shares most entries with a file, and how many."""
    matches = {}
    for name, config in DETECTORS.items():
        with torch.device("meta"):
            matches[name] = len(_compare(build(config()).state_dict(), entries, path).matched)
    best = max(matches, key=lambda name: matches[name])
    return best, matches[best]
