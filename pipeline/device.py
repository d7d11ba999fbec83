"""The compute device of a program, by name."""

import torch

from schemas.errors import RecipeError


def open_device(name: str) -> torch.device:
    """The compute device of that name.

    Raises:
        RecipeError: no such device, or not on this machine.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RecipeError(f"--device {name}: expected cpu, cuda or cuda:N.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RecipeError(f"--device {name}: this machine has no usable CUDA device; use --device cpu.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RecipeError(f"--device {name}: this machine has cuda:0 to cuda:{torch.cuda.device_count() - 1}.")
    if device.type not in ("cpu", "cuda"):
        raise RecipeError(f"--device {name}: expected cpu, cuda or cuda:N.")
    return device
