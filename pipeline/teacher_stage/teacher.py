"""The teacher: a network with its weights, and who it is. Only the teacher stage builds one from here."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from detectors.bevformer import BEVFormer
from detectors.catalogue import build
from detectors.weights import load_weights
from pipeline.recipe import Recipe, TeacherRecipe
from pipeline.teacher_stage.bevformer_teacher import BEVFormerTeacher
from pipeline.teacher_stage.file_teacher import open_file_teacher
from pipeline.teacher_stage.network import Inheritable, TeacherNetwork
from pipeline.teacher_stage.object_features import OBJECT_FEATURES, with_object_features
from pipeline.teacher_stage.reduced_grid import averaged_to
from pipeline.teacher_stage.temporal_target import TEMPORAL_TARGET, temporal_target_spec
from schemas.errors import RecipeError
from schemas.features import FeatureSpec
from schemas.manifest import TeacherIdentity, weights_sha256
from schemas.temporal_fusion import TemporalFusion
from train.options import Precision

_UNTRAINED_SEED = 0


@dataclass(frozen=True)
class Teacher:
    """A network in evaluation mode on its device.

    Attributes:
        network: what computes the features.
        identity: what the manifest records of it.
        precision: of the forward pass.
        weights: what was loaded, in words for people.
        fused: features that the stage itself computes, from several frames of the network's.
    """

    network: TeacherNetwork
    identity: TeacherIdentity
    precision: Precision
    weights: str
    fused: tuple[FeatureSpec, ...] = ()

    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        """All that can be cached of it."""
        return (*self.network.feature_specs(), *self.fused)

    def inheritable(self) -> dict[str, NDArray[Any]]:
        """What a student may start from, by name; empty when the network offers nothing."""
        if not isinstance(self.network, Inheritable):
            return {}
        return {name: tensor.cpu().numpy() for name, tensor in self.network.inheritable().items()}


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


@dataclass(frozen=True)
class TeacherChoice:
    """Which teacher, and what to keep of its BEV. It can be sent to another process, which opens its own copy.

    Attributes:
        recipe: the detector of the catalogue, or the file of a teacher of one's own; and the precision.
        weights: where its weights come from.
        bev_grid: rows and columns to average the BEV features to; None to keep the teacher's.
        max_objects: rows of ``object_features`` (``object_features.py``); None to do without.
        fusion: of ``temporal_target`` (``temporal_target.py``); None to do without.
    """

    recipe: TeacherRecipe
    weights: WeightsSource
    bev_grid: int | None = None
    max_objects: int | None = None
    fusion: TemporalFusion | None = None


def teacher_of(recipe: Recipe, weights: WeightsSource) -> TeacherChoice:
    """The teacher that fills a recipe's cache."""
    kept = recipe.cache
    max_objects = kept.max_objects if OBJECT_FEATURES in kept.features else None
    fusion = kept.temporal_target if TEMPORAL_TARGET in kept.features else None
    return TeacherChoice(recipe.teacher, weights, kept.bev_grid, max_objects, fusion)


def open_teacher(choice: TeacherChoice, device: torch.device) -> Teacher:
    """Build the teacher and load its weights.

    Raises:
        RecipeError: neither or both of a checkpoint and random weights; a teacher file that is none; a BEV grid that
            the teacher's cannot be averaged to; object features or a temporal target of one without a BEV map.
        CheckpointError: the checkpoint does not fit the architecture.
    """
    file = choice.recipe.file
    teacher = _catalogue_teacher(choice, device) if file is None else _file_teacher(choice, file, device)
    network = teacher.network
    if choice.max_objects is not None:  # read from the teacher's own cells, not from coarser ones
        network = with_object_features(network, choice.max_objects)
    if choice.bev_grid is not None:
        network = averaged_to(network, choice.bev_grid)
    return replace(teacher, network=network, fused=_fused(network, choice.fusion))


def load_detector(recipe: TeacherRecipe, source: WeightsSource) -> tuple[BEVFormer, str]:
    """A detector of the catalogue with the weights of a checkpoint, or with seeded random ones for a dry run.

    Returns:
        The detector, and what was loaded, in words.

    Raises:
        RecipeError: the source names neither or both.
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
    if checkpoint is None:
        return detector, "untrained: seeded random weights"
    return detector, str(load_weights(detector, checkpoint, source.allow_partial))


def _catalogue_teacher(choice: TeacherChoice, device: torch.device) -> Teacher:
    recipe = choice.recipe
    detector, weights = load_detector(recipe, choice.weights)
    identity = TeacherIdentity(
        name=recipe.name,
        architecture=recipe.detector.model_dump_json(),
        weights_sha256=_hash(detector.state_dict()),
        untrained=choice.weights.untrained,
    )
    return Teacher(BEVFormerTeacher(detector.eval().to(device)), identity, recipe.precision, weights)


def _file_teacher(choice: TeacherChoice, file: str, device: torch.device) -> Teacher:
    opened = open_file_teacher(file, choice.weights.checkpoint, device)
    identity = TeacherIdentity(
        name=opened.name,
        architecture=opened.architecture,
        weights_sha256=_hash(opened.network.state_dict()),
        untrained=choice.weights.untrained,
    )
    return Teacher(opened.network, identity, choice.recipe.precision, f"as {opened.name} gave it")


def _fused(network: TeacherNetwork, fusion: TemporalFusion | None) -> tuple[FeatureSpec, ...]:
    """``temporal_target`` where it is asked for; a teacher that gives one of its own keeps that."""
    offered = network.feature_specs()
    if fusion is None or any(spec.name == TEMPORAL_TARGET for spec in offered):
        return ()
    return (temporal_target_spec(offered, fusion),)


def _hash(state: Mapping[str, torch.Tensor]) -> str:
    return weights_sha256((name, tensor.detach().cpu().numpy()) for name, tensor in state.items())
