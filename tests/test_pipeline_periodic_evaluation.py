"""Scores along the way: on frames that are not trained on, and none where there are none."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from train_world import CPU, SCENES, tiny_detector, tiny_tables

from detectors.weights import load_weights
from pipeline.periodic_evaluation import split_to_choose_by, with_evaluation
from pipeline.recipe import override
from pipeline.recipes import demo, with_distillers
from pipeline.training import seeded_detector, train_with_progress
from scenes.scene_tables import SceneTables
from scenes.tables import load_tables
from schemas.errors import DataError, RecipeError
from train.options import TrainOptions
from train.run import TrainingRun

EVERY_SECOND = TrainOptions(steps=2, evaluate_every=2)


def run_on(tables: SceneTables, scene_names: tuple[str, ...], options: TrainOptions = EVERY_SECOND) -> TrainingRun:
    return TrainingRun(tiny_detector(), tables, scene_names, None, options, Path("unused"), CPU)


def test_a_run_is_scored_on_tune_as_it_trains(
    tiny_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"steps": 4, "evaluate_every": 3, "precision": "float32"}
    alone = with_distillers(demo(), ("none",))
    recipe = override(alone, [f"student.training.{name}={value}" for name, value in settings.items()])
    tables = load_tables(tiny_world, recipe.version, tmp_path)
    scenes, options = tables.scene_names("train"), recipe.student.training
    detector = seeded_detector(recipe.student.detector, seed=0)
    run = TrainingRun(detector, tables, scenes, None, options, tmp_path / "run", CPU)
    outcome = train_with_progress("student", recipe, run, None)
    assert capsys.readouterr().out.count("tune, 4 samples: NDS") == 2
    scores = [json.loads(line) for line in (tmp_path / "run" / "scores.jsonl").read_text().splitlines()]
    assert [(score["step"], score["split"], score["samples"]) for score in scores] == [(3, "tune", 4), (4, "tune", 4)]
    assert outcome.best is not None
    load_weights(detector, outcome.best)


def test_data_without_tune_is_scored_on_its_validation_split(tmp_path: Path, tiny_world: Path) -> None:
    assert split_to_choose_by(load_tables(tiny_world, "v1.0-trainval", tmp_path)) == "tune"
    assert split_to_choose_by(tiny_tables(tmp_path / "other")) == "val"


def test_what_is_trained_on_cannot_be_scored_on(tiny_world: Path, tmp_path: Path) -> None:
    tables = load_tables(tiny_world, "v1.0-trainval", tmp_path)
    with pytest.raises(
        RecipeError, match=r"on split 'tune', of whose 1 scenes 1 are trained on \(scene-.*evaluate_every=0"
    ):
        with_evaluation(run_on(tables, tables.scene_names("tune")))


def test_data_without_a_split_to_score_on_is_told(tmp_path: Path) -> None:
    tables = tiny_tables(tmp_path / "other")
    with pytest.raises(DataError, match=r"split 'val' has none of its scenes in v1\.0-trainval"):
        with_evaluation(run_on(tables, SCENES))


def test_a_run_that_asks_for_no_scores_or_makes_its_own_is_left_alone(tmp_path: Path) -> None:
    tables = tiny_tables(tmp_path / "other")
    plain = run_on(tables, SCENES, TrainOptions(steps=2))
    assert with_evaluation(plain) is plain
    own = replace(run_on(tables, SCENES), evaluate=lambda _detector: pytest.fail("only made, not called"))
    assert with_evaluation(own) is own
