"""``make train-student``: clips from the cache and the scenes, distillation losses, a student, its official score.

A twin without a teacher is trained beside it, and the two are set side by side. No teacher is built here: what the
student learns from is in the cache.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from cache.reading import Cache, open_cache
from detectors.catalogue import build
from detectors.weights import load_weights
from pipeline.console import console
from pipeline.dataset import DataChoice, chosen_scenes, open_data
from pipeline.evaluate import DEFAULT_PICTURES, Evaluated, Evaluation, kept_evaluation, print_evaluated, score_detector
from pipeline.pictures.training_curves import save_curves
from pipeline.recipe import Recipe
from pipeline.training import seeded_detector, train_with_progress
from pipeline.twin_comparison import show_comparison
from pipeline.twins import Student, students_of
from scenes.scene_tables import SceneTables
from scenes.splits import predefined_splits, training_split, validation_split
from schemas.errors import CheckpointError
from train.checkpoint import check_identity
from train.distiller_catalogue import needs_cache
from train.distributed import ALONE, Processes
from train.run import TrainingRun
from train.run_folder import RunFolder

EVALUATION_FOLDER = "evaluation"
CURVES_FILE = "curves.png"


@dataclass(frozen=True)
class StudentJob:
    """One call of the student stage.

    Attributes:
        recipe: student, distillers and training options.
        choice: data directory, version, split and scenes.
        cache_path: the teacher's cache; not opened for the distiller ``none``.
        out: the student's folder, and its twin's within it; None gives each its default.
        device: where to train.
        allow_untrained_teacher: accept a cache made with random weights.
        max_steps: stop when this many steps are done in all.
        processes: who trains together; ``device`` is this one's own.
        twin: train the undistilled twin, too.
        pictures: how many frames to draw; 0 draws nothing.
    """

    recipe: Recipe
    choice: DataChoice
    cache_path: Path
    out: Path | None
    device: torch.device
    allow_untrained_teacher: bool
    max_steps: int | None
    processes: Processes = ALONE
    twin: bool = True
    pictures: int = DEFAULT_PICTURES


@dataclass(frozen=True, eq=False)
class _Data:
    """What all runs of a job share: the frames to train on, the teacher's features, and the split to be scored on."""

    tables: SceneTables
    cache: Cache | None
    scene_names: tuple[str, ...]
    scored_split: str | None


def train_student(job: StudentJob) -> None:
    """Train the recipe's student and its twin, score both where the data allows it, and show them side by side.

    Raises:
        CacheError: no cache, or one that does not fit the data, the student or the distillers.
        CheckpointError: a folder holds another run.
        UserError: as the training loop and the evaluation.
    """
    students = students_of(job.recipe, job.out, twin=job.twin)
    data = _open(job)
    for student in students:
        job.processes.together(partial(_check_folder, job, data, student))
    found: list[Evaluated | None] = []
    for number, student in enumerate(students, start=1):
        place = f" {number} of {len(students)}, {student.label}" if len(students) > 1 else ""
        console.print(f"Training {student.name}, on {len(data.scene_names)} scenes", style="bold")
        train_with_progress(f"train-student{place}", student.recipe, _run(job, data, student), job.max_steps)
        job.processes.first_alone(partial(_score, job, data, student, found))
    job.processes.first_alone(lambda: _show(job, data, students, found))


def _open(job: StudentJob) -> _Data:
    cache = open_cache(job.cache_path) if needs_cache(job.recipe.student.training.distillation.names) else None
    tables = job.processes.first_then_all(lambda: open_data(job.recipe, job.choice))
    split = _training_split(job.choice, cache, tables)
    return _Data(tables, cache, chosen_scenes(tables, split, job.choice.scenes), _scored_split(tables))


def _training_split(choice: DataChoice, cache: Cache | None, tables: SceneTables) -> str:
    """The split asked for; else the cache's; else the version's training split."""
    if choice.split is not None:
        return choice.split
    return training_split(tables.version) if cache is None else cache.manifest.dataset.split


def _scored_split(tables: SceneTables) -> str | None:
    """The version's validation split, if it has one and the data holds labelled scenes of it."""
    if len(predefined_splits(tables.version)) < 2 or not tables.has_labels:
        return None
    split = validation_split(tables.version)
    return split if tables.split_sizes.get(split) else None


def _run(job: StudentJob, data: _Data, student: Student) -> TrainingRun:
    part = student.recipe.student
    return TrainingRun(
        detector=seeded_detector(part.detector, part.training.seed),
        tables=data.tables,
        scene_names=data.scene_names,
        cache=data.cache if student.distilled else None,
        options=part.training,
        out=student.out,
        device=job.device,
        allow_untrained_teacher=job.allow_untrained_teacher,
        processes=job.processes,
    )


def _check_folder(job: StudentJob, data: _Data, student: Student) -> None:
    """Tell that a folder holds another run before any other run has cost time."""
    checkpoint = RunFolder(student.out).checkpoint
    if not checkpoint.exists():
        return
    try:
        check_identity(checkpoint, _run(job, data, student).identity())
    except CheckpointError as error:
        if student.distilled or not job.twin:
            raise
        raise CheckpointError(f'{error} To train no undistilled twin: ARGS="--no-twin"') from error


def _score(job: StudentJob, data: _Data, student: Student, found: list[Evaluated | None]) -> None:
    """Add the official score of the weights that a run left; None where there is no labelled split."""
    if data.scored_split is None:
        console.print(f"Not scored: {data.tables.data_root} holds no labelled validation split.", soft_wrap=True)
        found.append(None)
        return
    part = student.recipe.student
    seen = set(data.scene_names) & set(data.tables.scene_names(data.scored_split))
    if seen:
        console.print(f"{len(seen)} scenes of {data.scored_split} were trained on: their score says little.")
    out = student.out / EVALUATION_FOLDER
    evaluation = Evaluation(
        data.tables, data.scored_split, part.training.precision, job.device, out, job.pictures, student.weights
    )
    kept = kept_evaluation(evaluation)
    if kept is None:
        detector = build(part.detector)
        load_weights(detector, student.weights)
        found.append(score_detector(student.name, detector.to(job.device), evaluation))
        return
    print_evaluated(student.name, kept)
    console.print(f"Scored before: {out}", soft_wrap=True)
    found.append(kept)


def _show(job: StudentJob, data: _Data, students: tuple[Student, ...], found: list[Evaluated | None]) -> None:
    """Curves of all runs in the first one's folder, and a comparison where there are two."""
    if job.pictures:
        curves = students[0].out / CURVES_FILE
        save_curves([(student.label, student.out) for student in students], curves)
        console.print(f"Training curves in {curves}", soft_wrap=True)
    scored = [evaluated for evaluated in found if evaluated is not None]
    if len(students) == 2 and len(scored) == 2:
        show_comparison(students, (scored[0], scored[1]), data.tables.data_root, job.pictures)
