"""``make evaluate``: the official nuScenes score of a detector, per class and in all, with plots and pictures."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from detectors.bevformer import BEVFormer
from detectors.catalogue import build
from detectors.weights import load_weights
from pipeline.console import Tracker, console, print_table
from pipeline.dataset import DataChoice, open_data
from pipeline.evaluation_files import (
    PICTURES_FOLDER,
    PLOTS_FOLDER,
    Identity,
    evaluation_identity,
    kept_score,
    write_score,
)
from pipeline.hidden_and_moving import ConditionScore, hidden_and_moving, table_rows
from pipeline.matching import MatchedFrame, match_split
from pipeline.paths import student_folder, student_weights, teacher_folder, teacher_weights
from pipeline.pictures.prediction_sheet import Prediction, SheetStyle, draw_frames
from pipeline.recipe import Recipe, write_recipe
from pipeline.shipped_weights import finished_teacher
from scenes.evaluation import evaluate, require_labels
from scenes.scene_tables import SceneTables
from scenes.score import Score
from scenes.splits import validation_split
from scenes.submission import SUBMISSION_FILE, read_submission
from schemas.boxes import Boxes
from schemas.errors import CheckpointError
from train.inference import InferenceOptions, detect
from train.options import Precision

DEFAULT_PICTURES = 4


OF_ANOTHER = "name the recipe that they are of with RECIPE=, and its student with --student"
"""What to do about weights that do not fit: a score of half a detector would say nothing."""


@dataclass(frozen=True)
class EvaluationJob:
    """What the command line asks to be scored.

    Attributes:
        recipe: of the detector.
        model: which of the recipe's detectors.
        checkpoint: its weights; None takes those that its training left.
        choice: the data, and the split if not the version's validation split.
        out: where to write; None is a folder beside the weights.
        device: where to run.
        pictures: how many frames to draw; 0 draws nothing, the devkit's plots neither.
        history: whether frames are told of those before.
    """

    recipe: Recipe
    model: Literal["student", "teacher"]
    checkpoint: Path | None
    choice: DataChoice
    out: Path | None
    device: torch.device
    pictures: int = DEFAULT_PICTURES
    history: bool = True


@dataclass(frozen=True)
class Evaluation:
    """What to score a detector on, and how to run it.

    Attributes:
        tables: the data.
        split: a labelled split of it.
        precision: of the forward pass.
        device: where to run.
        out: folder for everything that an evaluation leaves (``evaluation_files.py``).
        pictures: how many frames to draw; 0 draws nothing, the devkit's plots neither.
        weights: the file that the detector's weights come from; None cannot be recognised when asked for again.
        history: whether frames are told of those before.
    """

    tables: SceneTables
    split: str
    precision: Precision
    device: torch.device
    out: Path
    pictures: int = DEFAULT_PICTURES
    weights: Path | None = None
    history: bool = True


@dataclass(frozen=True, eq=False)
class Evaluated:
    """What an evaluation found.

    Attributes:
        score: the official one.
        frames: what was detected in every frame of the split, matched with its annotations.
        conditions: our own measurement of hidden and moving objects.
    """

    score: Score
    frames: tuple[MatchedFrame, ...]
    conditions: Mapping[str, ConditionScore]


def evaluate_checkpoint(job: EvaluationJob) -> Evaluated:
    """Score a detector of the recipe with weights from a file, by default those its training left.

    Raises:
        CheckpointError: no weights, or weights of another architecture.
        DataError: no such data or split, or one without labels.
    """
    part = job.recipe.teacher if job.model == "teacher" else job.recipe.student
    weights = job.checkpoint or _trained_weights(job)
    tables = open_data(job.recipe, job.choice)
    split = job.choice.split or validation_split(tables.version)
    require_labels(tables, split)
    out = job.out or _default_folder(job, weights)
    detector = build(part.detector)
    console.print(f"{part.name}: {load_weights(detector, weights, instead=OF_ANOTHER)}", soft_wrap=True)
    write_recipe(job.recipe, out)  # now, so that a folder that cannot be written is told before hours of inference
    precision: Precision = "float32" if part.training is None else part.training.precision
    evaluation = Evaluation(tables, split, precision, job.device, out, job.pictures, weights, job.history)
    return score_detector(part.name, detector.to(job.device), evaluation)


def score_detector(name: str, detector: BEVFormer, evaluation: Evaluation) -> Evaluated:
    """Run a detector over a split, score its detections officially, print and keep the result.

    Args:
        name: what tables and pictures call it.
        detector: on the evaluation's device.
        evaluation: what to score it on.

    Raises:
        DataError: the split has no labels, or an image cannot be read.
    """
    tables, split, out = evaluation.tables, evaluation.split, evaluation.out
    detections = _detections(name, detector, evaluation)
    score = evaluate(detections, tables, split, out, out / PLOTS_FOLDER if evaluation.pictures else None)
    frames = match_split(detections, tables, split)
    evaluated = Evaluated(score, frames, hidden_and_moving(frames))
    if evaluation.pictures:
        heading = f"{name} on {split}: NDS {score.nds:.3f}, mAP {score.mean_ap:.3f}"
        sheet = SheetStyle(heading, detector.config.grid, tables.data_root)
        draw_frames([Prediction(name, frames)], evaluation.pictures, sheet, out / PICTURES_FOLDER)
    if not any(len(frame.annotated) for frame in frames):
        console.print(f"There is no annotated object in {split}: whatever a detector does, its score is zero.")
    write_score(out, score, evaluated.conditions, _identity(evaluation))
    print_evaluated(name, evaluated)
    kinds = "Submission, scores, plots and pictures" if evaluation.pictures else "Submission and scores"
    console.print(f"{kinds} in {out}", soft_wrap=True)
    return evaluated


def kept_evaluation(evaluation: Evaluation) -> Evaluated | None:
    """What an earlier evaluation of exactly these weights on exactly this split found, if its folder has it all."""
    assert evaluation.weights is not None, "an evaluation is recognised by its weights"
    score = kept_score(evaluation.out, _identity(evaluation))
    is_drawn = (evaluation.out / PICTURES_FOLDER).exists()
    if score is None or (evaluation.pictures and not is_drawn):
        return None
    detections = read_submission(evaluation.out / SUBMISSION_FILE, evaluation.tables)
    frames = match_split(detections, evaluation.tables, evaluation.split)
    return Evaluated(score, frames, hidden_and_moving(frames))


def print_evaluated(name: str, evaluated: Evaluated) -> None:
    """Print the official numbers with AP and errors of each class, then our own."""
    score = evaluated.score
    header = ("class", "AP", *score.tp_errors)
    rows = [
        (label, f"{ap:.3f}", *(f"{score.class_tp_errors[label][error]:.3f}" for error in score.tp_errors))
        for label, ap in score.class_ap.items()
    ]
    rows.append(("all", f"{score.mean_ap:.3f}", *(f"{value:.3f}" for value in score.tp_errors.values())))
    print_table(
        f"{name} on {score.split} ({score.samples} samples): NDS {score.nds:.3f}, mAP {score.mean_ap:.3f}", header, rows
    )
    print_table(
        "Hidden and moving objects (ours, not part of the official score)",
        ("annotated objects", "number", "recall", "velocity error, m/s"),
        table_rows(evaluated.conditions),
    )


def _trained_weights(job: EvaluationJob) -> Path:
    """The weights that training left, or those of a teacher that come with the program."""
    if job.model == "teacher" and job.recipe.teacher.training is None:
        raise CheckpointError(
            f"No teacher weights: recipe {job.recipe.name!r} takes published ones, so give CHECKPOINT=/path/to/file."
        )
    if job.model == "teacher":
        expected, command = teacher_weights(teacher_folder(job.recipe)), "make demo-teacher"
        weights = finished_teacher(job.recipe) or expected
    else:
        expected, command = student_weights(student_folder(job.recipe)), "make train-student"
        weights = expected
    if not weights.exists():
        others = sorted(map(str, expected.parent.parent.glob(f"{job.model}*/{expected.name}")))
        there = f" There are {', '.join(others)}." if others else ""
        raise CheckpointError(
            f"No {job.model} weights at {expected}: run `{command}` first, or give CHECKPOINT=/path/to/file.{there}"
        )
    return weights


def _default_folder(job: EvaluationJob, weights: Path) -> Path:
    """Beside the weights that were asked for; in the training's folder for all others, wherever they lie."""
    trained = teacher_folder(job.recipe) if job.model == "teacher" else student_folder(job.recipe)
    name = f"evaluation-{job.model}" if job.history else f"evaluation-{job.model}-no-history"
    return (weights.parent if job.checkpoint else trained) / name


def _detections(name: str, detector: BEVFormer, evaluation: Evaluation) -> dict[str, Boxes]:
    tables = evaluation.tables
    names = tables.scene_names(evaluation.split)
    options = InferenceOptions(evaluation.device, evaluation.precision, history=evaluation.history)
    total = sum(tables.scene_length(scene) for scene in names)
    with Tracker(f"evaluate {name} on {evaluation.split}", total, "frames") as tracker:
        return detect(detector, tables, names, options, lambda _token: tracker.advance())


def _identity(evaluation: Evaluation) -> Identity:
    return evaluation_identity(
        evaluation.weights,
        evaluation.tables.tables_sha256,
        evaluation.split,
        evaluation.precision,
        history=evaluation.history,
    )
