"""How the golden tensors' weights and inputs were made: from a name and a shape, with numpy's frozen legacy stream.

Golden data were produced once with the official BEVFormer code; ``docs/references.md`` cites it. The recipe lets both
sides have the same weights without storing them.
"""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

GOLDEN = Path(__file__).parent / "golden"


def fill(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The golden weights of one entry, by its full state-dict name (prefix included)."""
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("running_var"):
        values = 1 + 0.1 * np.abs(noise)
    elif len(shape) >= 2:
        values = noise / math.sqrt(math.prod(shape[1:]))
    elif name.endswith("sampling_offsets.bias"):
        values = 1.5 * noise
    elif name.endswith("attention_weights.bias"):
        values = 0.5 * noise
    elif name.endswith("weight"):
        values = 1 + 0.1 * noise
    else:
        values = 0.05 * noise
    return np.asarray(values, dtype=np.float32)


def fill_module(module: nn.Module, prefix: str = "") -> None:
    """Give a module the golden weights in place; ``prefix`` is put before its own names, e.g. ``img_backbone.``."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point() and not name.endswith("code_weights"):
                tensor.copy_(torch.from_numpy(fill(prefix + name, tuple(tensor.shape))))


def tensor(tag: str, shape: tuple[int, ...], scale: float = 1.0) -> Tensor:
    """A golden input, float32."""
    noise = np.random.RandomState(zlib.crc32(tag.encode())).standard_normal(shape)
    return torch.from_numpy(np.asarray(scale * noise, dtype=np.float32))


def load_golden(file_name: str) -> dict[str, NDArray[np.generic]]:
    """All arrays of one ``tests/golden/*.npz``."""
    with np.load(GOLDEN / file_name, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def golden_state_dict_shapes(model: str) -> dict[str, tuple[int, ...]]:
    """Name and shape of every state-dict entry of an official model: ``base``, ``small``, ``tiny`` or ``mini``."""
    entries = json.loads((GOLDEN / f"bevformer_{model}_state_dict.json").read_text())
    return {name: tuple(shape) for name, shape in entries.items()}
