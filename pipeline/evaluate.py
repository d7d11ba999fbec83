"""``make evaluate``: the official nuScenes score of a detector, per class and in all."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from detectors.bevformer import BEVFormer
from detectors.catalogue import build
from detectors.weights import load_weights
from pipeline.console import Tracker, console, print_table
from pipeline.dataset import DataChoice, open_data
from pipeline.paths import student_folder, student_weights, teacher_folder, teacher_weights
from pipeline.recipe import Recipe, write_recipe
from scenes.evaluation import evaluate, require_labels
from scenes.scene_tables import SceneTables
from scenes.score import Score
from scenes.splits import validation_split
from scenes.whole_file import whole_file
from schemas.errors import CheckpointError
from train.inference import InferenceOptions, detect
from train.options import Precision

SCORE_FILE = "score.json"


@dataclass(frozen=True)
class Evaluation:
    """What to score a detector on, and how to run it.

    Attributes:
        tables: the data.
        split: a labelled split of it.
        precision: of the forward pass.
        device: where to run.
        out: folder for the submission and the scores.
    """

    tables: SceneTables
    split: str
    precision: Precision
    device: torch.device
    out: Path


def evaluate_checkpoint(
    recipe: Recipe,
    model: Literal["student", "teacher"],
    checkpoint: Path | None,
    choice: DataChoice,
    out: Path | None,
    device: torch.device,
) -> Score:
    """Score a detector of the recipe with weights from a file, by default those its training left.

    Raises:
        CheckpointError: no weights, or weights of another architecture.
        DataError: no such data or split, or one without labels.
    """
    part = recipe.teacher if model == "teacher" else recipe.student
    default = teacher_weights(teacher_folder(recipe)) if model == "teacher" else student_weights(student_folder(recipe))
    weights = checkpoint or default
    if checkpoint is None and not default.exists():
        command = "make demo-teacher" if model == "teacher" else "make train-student"
        raise CheckpointError(
            f"No {model} weights at {default}: run `{command}` first, or give CHECKPOINT=/path/to/file."
        )
    tables = open_data(recipe, choice)
    split = choice.split or validation_split(tables.version)
    require_labels(tables, split)
    detector = build(part.detector)
    console.print(f"{part.name}: {load_weights(detector, weights)}", soft_wrap=True)
    folder = out or weights.parent / f"evaluation-{model}"
    write_recipe(recipe, folder)  # now, so that a folder that cannot be written is told before hours of inference
    precision: Precision = "float32" if part.training is None else part.training.precision
    evaluation = Evaluation(tables, split, precision, device, folder)
    return score_detector(part.name, detector.to(device), evaluation)


def score_detector(name: str, detector: BEVFormer, evaluation: Evaluation) -> Score:
    """Run a detector over a split, score its detections officially, print and keep the result.

    Raises:
        DataError: the split has no labels, or an image cannot be read.
    """
    tables, split = evaluation.tables, evaluation.split
    names = tables.scene_names(split)
    options = InferenceOptions(device=evaluation.device, precision=evaluation.precision)
    total = sum(tables.scene_length(scene) for scene in names)
    with Tracker(f"evaluate {name} on {split}", total, "frames") as tracker:
        detections = detect(detector, tables, names, options, lambda _token: tracker.advance())
    score = evaluate(detections, tables, split, evaluation.out)
    with whole_file(evaluation.out / SCORE_FILE) as file:
        file.write(json.dumps(score.as_dict(), indent=2).encode())
    print_score(name, score)
    console.print(f"Submission and scores in {evaluation.out}", soft_wrap=True)
    return score


def print_score(name: str, score: Score) -> None:
    """Print the official numbers, then AP and errors of each class."""
    header = ("class", "AP", *score.tp_errors)
    rows = [
        (label, f"{ap:.3f}", *(f"{score.class_tp_errors[label][error]:.3f}" for error in score.tp_errors))
        for label, ap in score.class_ap.items()
    ]
    rows.append(("all", f"{score.mean_ap:.3f}", *(f"{value:.3f}" for value in score.tp_errors.values())))
    print_table(
        f"{name} on {score.split} ({score.samples} samples): NDS {score.nds:.3f}, mAP {score.mean_ap:.3f}", header, rows
    )
