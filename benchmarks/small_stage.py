"""The teacher stage as a part of a measurement: a world, a teacher, a cache of it; nothing is printed."""

from dataclasses import dataclass
from pathlib import Path

import torch

from cache.reading import Cache, open_cache
from cache.writing import SceneSlot, open_for_writing
from pipeline.recipe import Recipe
from pipeline.teacher_stage.job import CacheJob, StageOptions, StageSource, describe
from pipeline.teacher_stage.serial import cache_serially
from pipeline.teacher_stage.teacher import WeightsSource, open_teacher, teacher_of
from pipeline.training import seeded_detector
from scenes.scene_tables import SceneTables
from scenes.splits import training_split
from scenes.synthetic import WorldOptions, write_world
from scenes.synthetic.options import TABLE_VERSION
from scenes.tables import load_tables
from schemas.fidelity import Fidelity
from train.run import TrainingRun
from train.stream import OpenTargets

FULL_SIZE_WH = (1600, 900)
"""Of nuScenes' images, for recipes without a world of their own."""


def small_world(folder: Path, recipe: Recipe, scenes: int, steps: int) -> SceneTables:
    """Write training scenes of the recipe's image size."""
    width, height = FULL_SIZE_WH if recipe.world is None else (recipe.world.image_width, recipe.world.image_height)
    world = WorldOptions(
        train_scenes=scenes,
        tune_scenes=0,
        val_scenes=0,
        frames_per_scene=steps,
        image_width=width,
        image_height=height,
    )
    write_world(world, folder, workers=1, on_scene=lambda _: None)
    return load_tables(folder, TABLE_VERSION)


def stage_source(recipe: Recipe, tables: SceneTables, weights: WeightsSource, device: torch.device) -> StageSource:
    """The recipe's teacher and all training scenes."""
    split = training_split(tables.version)
    teacher = open_teacher(teacher_of(recipe, weights), device)
    names = tables.scene_names(split)
    slots = tuple(SceneSlot(name, tables.scene_token(name), tables.scene_length(name)) for name in names)
    return StageSource(teacher, tables, describe(recipe, teacher, tables, split, device), slots, names, device)


def fill_cache(source: StageSource, path: Path) -> Cache:
    """Cache what is not yet in the cache.

    Raises:
        UserError: a scene cannot be cached.
    """
    writer = open_for_writing(path, source.manifest, source.slots)
    if inheritable := source.teacher.inheritable():
        writer.write_parameters(inheritable)
    job = CacheJob(source.teacher, source.tables, writer, source.manifest, source.device, StageOptions())
    waiting = [name for name in source.names if name not in writer.committed()]
    failures = cache_serially(job, waiting, _Silence())
    assert not failures, failures
    return open_cache(path)


@dataclass(frozen=True)
class Student:
    """A student to be trained, here or in another process, which does not build a teacher for it.

    Attributes:
        recipe: of the student, and its options.
        tables: their training scenes are what it learns from.
        cache: the teacher's cache.
        device: where to train.
    """

    recipe: Recipe
    tables: SceneTables
    cache: Cache
    device: torch.device

    def run(self, out: Path, open_targets: OpenTargets | None = None) -> TrainingRun:
        """A training run in the folder ``out``; its targets from the cache unless another source is given."""
        training = self.recipe.student.training
        return TrainingRun(
            detector=seeded_detector(self.recipe.student.detector, training.seed),
            tables=self.tables,
            scene_names=self.tables.scene_names(training_split(self.tables.version)),
            cache=self.cache,
            options=training,
            out=out,
            device=self.device,
            allow_untrained_teacher=True,
            open_targets=open_targets,
        )


class _Silence:
    """Events of a stage that nobody watches."""

    def frame_done(self, scene_name: str) -> None:
        pass

    def scene_failed(self, scene_name: str, reason: str) -> None:
        pass

    def fidelity_measured(self, fidelity: Fidelity) -> None:
        pass
