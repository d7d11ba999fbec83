"""``make train-student``: clips from the cache and the scenes, distillation losses, a student, its official score.

No teacher is built here: what the student learns from is in the cache.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from cache.reading import Cache, open_cache
from pipeline.console import console
from pipeline.dataset import DataChoice, chosen_scenes, open_data
from pipeline.evaluate import Evaluation, score_detector
from pipeline.recipe import Recipe
from pipeline.training import seeded_detector, train_with_progress
from scenes.scene_tables import SceneTables
from scenes.splits import training_split, validation_split
from train.distiller_catalogue import needs_cache
from train.distributed import ALONE, Processes
from train.run import TrainingRun


@dataclass(frozen=True)
class StudentJob:
    """One run of the student stage.

    Attributes:
        recipe: student, distillers and training options.
        choice: data directory, version, split and scenes.
        cache_path: the teacher's cache; not opened for the distiller ``none``.
        out: the run's folder.
        device: where to train.
        allow_untrained_teacher: accept a cache made with random weights.
        max_steps: stop when this many steps are done in all.
        processes: who trains together; ``device`` is this one's own.
    """

    recipe: Recipe
    choice: DataChoice
    cache_path: Path
    out: Path
    device: torch.device
    allow_untrained_teacher: bool
    max_steps: int | None
    processes: Processes = ALONE


def train_student(job: StudentJob) -> None:
    """Train the recipe's student, then score it on the validation split when the data has one.

    Raises:
        CacheError: no cache, or one that does not fit the data, the student or the distillers.
        UserError: as the training loop and the evaluation.
    """
    student, training = job.recipe.student, job.recipe.student.training
    cache = open_cache(job.cache_path) if needs_cache(training.distillation.names) else None
    tables = job.processes.first_then_all(lambda: open_data(job.recipe, job.choice))
    split = _training_split(job.choice, cache, tables)
    run = TrainingRun(
        detector=seeded_detector(student.detector, training.seed),
        tables=tables,
        scene_names=chosen_scenes(tables, split, job.choice.scenes),
        cache=cache,
        options=training,
        out=job.out,
        device=job.device,
        allow_untrained_teacher=job.allow_untrained_teacher,
        processes=job.processes,
    )
    names = ", ".join(training.distillation.names)
    console.print(f"Training {student.name} with {names} on {len(run.scene_names)} scenes", style="bold")
    train_with_progress("train-student", job.recipe, run, job.max_steps)
    job.processes.first_alone(lambda: _score(job, run))


def _training_split(choice: DataChoice, cache: Cache | None, tables: SceneTables) -> str:
    """The split asked for; else the cache's; else the version's training split."""
    if choice.split is not None:
        return choice.split
    return training_split(tables.version) if cache is None else cache.manifest.dataset.split


def _score(job: StudentJob, run: TrainingRun) -> None:
    split = validation_split(run.tables.version)
    if not run.tables.split_sizes.get(split):
        console.print(f"Not scored: {run.tables.data_root} holds no scene of {split}.", soft_wrap=True)
        return
    evaluation = Evaluation(run.tables, split, run.options.precision, job.device, job.out / "evaluation")
    score_detector(job.recipe.student.name, run.detector, evaluation)
