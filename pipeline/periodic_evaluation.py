"""Scores while a student or the demo's teacher is trained: on which frames, and what is said of them."""

import tempfile
from dataclasses import replace
from pathlib import Path

from detectors.bevformer import BEVFormer
from pipeline.console import console
from scenes.evaluation import evaluate, require_labels
from scenes.scene_tables import SceneTables
from scenes.score import Score
from scenes.splits import validation_split
from schemas.errors import RecipeError
from train.inference import InferenceOptions, detect
from train.run import TrainingRun

TUNE_SPLIT = "tune"
"""The split for choosing settings and weights by, where the data has one of that name; the validation split is then
left for a last word."""


def with_evaluation(run: TrainingRun) -> TrainingRun:
    """The run with what it needs to be scored as it goes, if its options ask for scores and it has nothing yet.

    Raises:
        DataError: the data holds no labelled split to score on.
        RecipeError: the split shares scenes with those trained on.
    """
    if run.options.evaluate_every == 0 or run.evaluate is not None:
        return run
    split = split_to_choose_by(run.tables)
    require_labels(run.tables, split)
    scenes = run.tables.scene_names(split)
    shared = sorted(set(scenes) & set(run.scene_names))
    if shared:
        raise RecipeError(
            f"training.evaluate_every={run.options.evaluate_every} scores the run on split {split!r}, of whose "
            f"{len(scenes)} scenes {len(shared)} are trained on ({', '.join(shared[:3])}): such scores say nothing. "
            "Train on other scenes (--split, --scenes), or --set student.training.evaluate_every=0"
        )
    options = InferenceOptions(device=run.device, precision=run.options.precision)

    def score(detector: BEVFormer) -> Score:
        detections = detect(detector, run.tables, scenes, options, lambda _token: None)
        with tempfile.TemporaryDirectory() as submission:
            found = evaluate(detections, run.tables, split, Path(submission))
        console.print(f"{split}, {found.samples} samples: NDS {found.nds:.3f}, mAP {found.mean_ap:.3f}")
        return found

    return replace(run, evaluate=score)


def split_to_choose_by(tables: SceneTables) -> str:
    """``tune`` where the data has it, else the validation split of the version.

    Raises:
        DataError: the version has neither.
    """
    return TUNE_SPLIT if tables.split_sizes.get(TUNE_SPLIT) else validation_split(tables.version)
