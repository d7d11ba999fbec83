"""The teacher: a detector with its weights, and who it is. Only the teacher stage and the evaluation build one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from detectors.bevformer import BEVFormer
from detectors.catalogue import build
from detectors.weights import load_weights
from pipeline.console import console
from pipeline.recipe import TeacherRecipe
from schemas.errors import RecipeError
from schemas.manifest import TeacherIdentity, weights_sha256

_UNTRAINED_SEED = 0


@dataclass(frozen=True)
class Teacher:
    """A detector in eval mode on its device, and the identity that the manifest records."""

    detector: BEVFormer
    identity: TeacherIdentity

    def inheritable(self) -> dict[str, NDArray[Any]]:
        """What a student may start from: queries, position tables, decoder, branches; under their published names."""
        return {
            name: tensor.cpu().numpy()
            for name, tensor in self.detector.state_dict().items()
            if name.startswith("pts_bbox_head.") and ".encoder." not in name
        }


@dataclass(frozen=True)
class WeightsSource:
    """Where a teacher's weights come from.

    Attributes:
        checkpoint: ``.pth`` as published, or ``.safetensors``; None without one.
        allow_partial: load what fits of a checkpoint whose entries do not all match.
        untrained: seeded random weights, for a dry run.
    """

    checkpoint: Path | None
    allow_partial: bool = False
    untrained: bool = False


def load_teacher(recipe: TeacherRecipe, source: WeightsSource, device: torch.device) -> Teacher:
    """Build the teacher with the weights of a checkpoint, or with seeded random ones for a dry run.

    Raises:
        RecipeError: the source names neither or both of a checkpoint and random weights.
        CheckpointError: the checkpoint does not fit the architecture.
    """
    checkpoint, untrained = source.checkpoint, source.untrained
    if untrained and checkpoint is not None:
        raise RecipeError(f"--untrained and --checkpoint {checkpoint} exclude each other: drop one of them.")
    if not untrained and checkpoint is None:
        raise RecipeError(
            f"Teacher {recipe.name!r} has no weights: give a checkpoint with CHECKPOINT=/path/to/weights (.pth as "
            "published, or .safetensors), or ARGS=--untrained for a dry run with random weights."
        )
    with torch.random.fork_rng():
        torch.manual_seed(_UNTRAINED_SEED)
        detector = build(recipe.detector)
    if checkpoint is not None:
        console.print(
            f"Teacher {recipe.name}: {load_weights(detector, checkpoint, source.allow_partial)}", soft_wrap=True
        )
    identity = TeacherIdentity(
        name=recipe.name,
        architecture=recipe.detector.model_dump_json(),
        weights_sha256=weights_sha256((name, tensor.numpy()) for name, tensor in detector.state_dict().items()),
        untrained=untrained,
    )
    return Teacher(detector.eval().to(device), identity)


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
