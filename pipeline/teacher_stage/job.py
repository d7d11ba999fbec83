"""What a run of the teacher stage works on.

``StageChoice`` describes it and can be sent to a worker; each process opens its own teacher, tables and cache from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field

from cache.writing import CacheWriter, SceneSlot, open_for_writing
from pipeline.dataset import DataChoice, chosen_scenes, chosen_split, open_data
from pipeline.device import open_device
from pipeline.recipe import Recipe
from pipeline.teacher_stage.object_features import OBJECT_FEATURES, require_room
from pipeline.teacher_stage.teacher import Teacher, WeightsSource, open_teacher, teacher_of
from scenes.scene_tables import SceneTables
from schemas.errors import RecipeError
from schemas.features import FeatureSpec
from schemas.manifest import DatasetIdentity, Manifest


class StageOptions(BaseModel):
    """How the stage runs. Nothing here changes a number but ``threads``, which may change a rounding.

    Attributes:
        decode_threads: threads that decode images, in each process.
        queue_frames: frames that may wait for the disk, in each process.
        threads: torch's threads, in each process; None for torch's own choice.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    decode_threads: int = Field(default=2, ge=1)
    queue_frames: int = Field(default=3, ge=1)
    threads: int | None = Field(default=None, ge=1)


@dataclass(frozen=True)
class StageChoice:
    """A run of the teacher stage, in words.

    Attributes:
        recipe: the teacher, which of its features to keep, in which tier.
        weights: where the teacher's weights come from.
        data: data directory, version, split and scenes.
        cache_path: the cache, made when it does not exist.
        device: where the teacher runs.
        options: how.
    """

    recipe: Recipe
    weights: WeightsSource
    data: DataChoice
    cache_path: Path
    device: str = "cpu"
    options: StageOptions = field(default_factory=StageOptions)


@dataclass(frozen=True)
class StageSource:
    """The teacher and its frames: all but the cache.

    Attributes:
        teacher: opened on ``device``.
        tables: the data.
        manifest: of the cache that they make.
        slots: the cache's scene axis, the whole split.
        names: the scenes asked for, in name order.
        device: where the teacher runs.
    """

    teacher: Teacher
    tables: SceneTables
    manifest: Manifest
    slots: tuple[SceneSlot, ...]
    names: tuple[str, ...]
    device: torch.device

    def frames_of(self, names: Sequence[str]) -> int:
        """Number of keyframes of some scenes."""
        return sum(self.tables.scene_length(name) for name in names)


@dataclass(frozen=True)
class CacheJob:
    """Everything that one process needs to cache scenes."""

    teacher: Teacher
    tables: SceneTables
    writer: CacheWriter
    manifest: Manifest
    device: torch.device
    options: StageOptions


def open_source(choice: StageChoice) -> StageSource:
    """Open the teacher and the data, and describe the cache they make. Writes nothing.

    Raises:
        RecipeError: no such device, teacher or feature.
        CheckpointError: weights that do not fit.
        DataError: the data directory is not nuScenes, or lacks a scene asked for.
    """
    if choice.options.threads is not None:
        torch.set_num_threads(choice.options.threads)
    device = open_device(choice.device)
    settle_arithmetic()
    tables = open_data(choice.recipe, choice.data)
    split = chosen_split(tables, choice.data)
    names = chosen_scenes(tables, split, choice.data.scenes)
    teacher = open_teacher(teacher_of(choice.recipe, choice.weights), device)
    if OBJECT_FEATURES in choice.recipe.cache.features:
        require_room(tables, tables.scene_names(split), teacher.network.grid, choice.recipe.cache.max_objects)
    manifest = describe(choice.recipe, teacher, tables, split, device)
    slots = tuple(SceneSlot(n, tables.scene_token(n), tables.scene_length(n)) for n in tables.scene_names(split))
    return StageSource(teacher, tables, manifest, slots, names, device)


def open_job(choice: StageChoice, source: StageSource) -> CacheJob:
    """Create the cache or open it to add to it.

    Raises:
        CacheError: the cache was made by another teacher, from other data, or in another form.
    """
    made_with = {
        "program_version": source.manifest.program_version,
        "device": _device_model(source.device),
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
    }
    writer = open_for_writing(choice.cache_path, source.manifest, source.slots, made_with=made_with)
    return CacheJob(source.teacher, source.tables, writer, source.manifest, source.device, choice.options)


def settle_arithmetic() -> None:
    """Have the device compute the same bytes every time: deterministic convolutions, and no silent TF32."""
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def describe(recipe: Recipe, teacher: Teacher, tables: SceneTables, split: str, device: torch.device) -> Manifest:
    """The manifest of the cache that this recipe, teacher and data make.

    Raises:
        RecipeError: the recipe asks for a feature the teacher does not have.
    """
    network = teacher.network
    return Manifest(
        teacher=teacher.identity,
        preprocessing=network.preprocessing,
        precision=teacher.precision,
        dataset=DatasetIdentity(
            name="nuscenes", version=tables.version, split=split, tables_sha256=tables.tables_sha256
        ),
        features=chosen_features(teacher.feature_specs(), recipe.cache.features),
        tier=recipe.cache.tier,
        class_names=network.class_names,
        grid=network.grid,
        program_version=version("bev-teacher-cache"),
        device=str(device),
    )


def chosen_features(offered: Sequence[FeatureSpec], asked: Sequence[str]) -> tuple[FeatureSpec, ...]:
    """The specs of the features asked for, in the teacher's order; all of them when none is named.

    Raises:
        RecipeError: a feature the teacher does not have.
    """
    if not asked:
        return tuple(offered)
    unknown = sorted(set(asked) - {spec.name for spec in offered})
    if unknown:
        raise RecipeError(
            f"The teacher has no feature {', '.join(unknown)}; it offers {', '.join(spec.name for spec in offered)}. "
            "Choose with --arrays."
        )
    return tuple(spec for spec in offered if spec.name in asked)


def _device_model(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
