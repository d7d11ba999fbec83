"""Reading a weights file, a PyTorch checkpoint or safetensors, under the names that detectors have today.

No code of a file is ever run.
"""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from schemas.errors import CheckpointError

_BEFORE_TORCH_1_6 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def read_weights_file(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU.

    Args:
        path: ``.safetensors``, or a PyTorch checkpoint: a dict of tensors, alone or under ``state_dict``. Old DCN
            names (``conv2_offset``) and a ``module.`` prefix are understood.

    Raises:
        CheckpointError: the file is absent, damaged, not a checkpoint, or needs code to be read.
    """
    return _todays_names(_read(path), path)


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
