"""Training commands under torchrun: each process with a device of its own, and one of them to speak for all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.console import console
from pipeline.device import open_device
from schemas.errors import RecipeError
from train.distributed import Processes, joined_processes


@contextmanager
def open_processes(device_name: str) -> Iterator[tuple[Processes, torch.device]]:
    """Join the processes that torchrun started, if it did. All but the first print nothing more, but for errors.

    Args:
        device_name: ``cuda`` gives every process on a machine the GPU of its local rank.

    Raises:
        RecipeError: no such device, or fewer GPUs than processes on this machine.
        UserError: the other processes cannot be reached.
    """
    with joined_processes(os.environ, device_name) as processes:
        console.quiet = not processes.is_first
        device = open_device(device_name)
        if device.type == "cuda" and processes.count > 1:
            device = _own_gpu(device_name, processes.local_rank)
        yield processes, device


def _own_gpu(device_name: str, local_rank: int) -> torch.device:
    if ":" in device_name:
        raise RecipeError(
            f"--device {device_name}: several processes cannot share one GPU; use --device cuda, which gives each its "
            "own."
        )
    if local_rank >= torch.cuda.device_count():
        raise RecipeError(
            f"this machine has {torch.cuda.device_count()} GPUs, and this is its process number {local_rank + 1}. "
            f"Start fewer: torchrun --nproc-per-node {torch.cuda.device_count()}"
        )
    own = torch.device("cuda", local_rank)
    torch.cuda.set_device(own)  # NCCL talks over the current device
    return own
