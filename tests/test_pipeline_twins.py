"""A student and its undistilled twin through the command line: two runs, one table, and nothing trained twice."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from program import SMALL, Program

from pipeline.recipes import demo, with_distillers
from pipeline.twins import students_of, undistilled
from scenes.scene_tables import SceneTables
from scenes.submission import read_submission, submission_boxes, write_submission
from scenes.tables import load_tables
from schemas.errors import DataError

ALLOW = "--allow-untrained-teacher"
TAUGHT, TWIN = Path("out/demo/student-pkd-seed0"), Path("out/demo/student-none-seed0")


@pytest.fixture
def program(tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    return Program(tiny_world, tmp_path, monkeypatch)


@pytest.fixture
def cached(program: Program) -> Program:
    """With a teacher's cache."""
    program.succeeded("cache-teacher", "--untrained")
    return program


def test_both_are_trained_scored_and_set_side_by_side_and_the_twin_serves_the_next_distiller(cached: Program) -> None:
    alike = (*SMALL, "--set=student.training.distillation.inherit=false")
    text = cached.succeeded("train-student", ALLOW, "--distiller", "pkd", "--twin", "--pictures", "1", sets=alike)
    for said in ("train-student 1 of 2, pkd", "train-student 2 of 2, undistilled", "difference", "make gains"):
        assert said in text
    comparison = json.loads((TAUGHT / "against-undistilled" / "comparison.json").read_text())
    scores = {path: json.loads((path / "evaluation" / "score.json").read_text()) for path in (TAUGHT, TWIN)}
    assert comparison["official"]["pkd"]["NDS"] == scores[TAUGHT]["nds"]
    assert comparison["difference"]["NDS"] == scores[TAUGHT]["nds"] - scores[TWIN]["nds"]
    assert (comparison["seed"], comparison["seeds"]) == (0, 1)
    assert scores[TWIN]["hidden_and_moving"]["official"] is False
    drawn = sorted(path.name for path in (TAUGHT / "against-undistilled").glob("*.png"))
    assert drawn == sorted(path.name for path in (TWIN / "evaluation" / "pictures").iterdir())
    assert len(drawn) == 1
    assert (TAUGHT / "curves.png").exists()
    first = [json.loads((path / "metrics.jsonl").read_text().splitlines()[0])["terms"] for path in (TAUGHT, TWIN)]
    detection = [{name: value for name, value in terms.items() if name.startswith("detection/")} for terms in first]
    assert detection[0] == detection[1], "twins begin alike"

    trained = (TWIN / "metrics.jsonl").read_bytes()
    weight = "--set=student.training.distillation.feature.weight=2.0"
    text = cached.succeeded("train-student", ALLOW, "--distiller", "feature", "--twin", sets=(*SMALL, weight))
    assert "Scored before: out/demo/student-none-seed0/evaluation" in text
    assert text.count("evaluate demo-student") == 1
    assert "train-student 2 of 2, undistilled: 4/4 steps" in text
    assert (TWIN / "metrics.jsonl").read_bytes() == trained


def test_without_a_teacher_there_is_no_twin(program: Program) -> None:
    text = program.succeeded("train-student", "--distiller", "none", "--twin")
    assert "2 of 2" not in text
    assert [path.name for path in Path("out/demo").glob("student*")] == [TWIN.name]


def test_a_folder_of_ones_own_holds_both(cached: Program) -> None:
    cached.succeeded("train-student", ALLOW, "--twin", "--out", "mine", "--max-steps", "1")
    assert Path("mine/weights.safetensors").exists()
    assert Path("mine/undistilled/weights.safetensors").exists()
    assert not list(Path("out/demo").glob("student*"))


def test_a_twin_of_another_run_is_told_before_anything_is_trained(cached: Program) -> None:
    cached.succeeded("train-student", "--distiller", "none", "--max-steps", "1")
    longer = (*SMALL, "--set=student.training.steps=5")
    refused = cached.refused("train-student", ALLOW, "--distiller", "pkd", "--twin", sets=longer)
    assert "options.steps: 5 now, 4 in the checkpoint" in refused
    assert 'ARGS="--no-twin"' in refused
    assert not TAUGHT.exists()


def test_a_twin_has_nothing_of_any_teacher() -> None:
    recipe = with_distillers(demo(), ("pkd", "feature"))
    training = recipe.student.training
    options = training.distillation.model_copy(update={"inherit": ("decoder",)})
    taught = training.model_copy(update={"distillation": options})
    recipe = recipe.model_copy(update={"student": recipe.student.model_copy(update={"training": taught})})
    student, twin = students_of(recipe, None, twin=True)
    assert (student.label, twin.label) == ("pkd+feature", "undistilled")
    assert twin.recipe == undistilled(with_distillers(demo(), ("none",)))
    left = twin.recipe.student.training.distillation
    assert (left.names, left.inherit) == (("none",), ())
    assert twin.recipe.student.training.seed == student.recipe.student.training.seed
    assert students_of(with_distillers(demo(), ("none",)), None, twin=True) == (twin,)
    assert students_of(recipe, None, twin=False) == (student,)


def test_a_submission_is_read_back(tiny_world: Path, tmp_path: Path) -> None:
    tables: SceneTables = load_tables(tiny_world, "v1.0-trainval")
    frame = tables.frames(tables.scene_names("val")[0])[0]
    assert frame.boxes is not None
    given = replace(frame.boxes, scores=np.linspace(0.9, 0.1, len(frame.boxes)))
    rows = submission_boxes(frame, given)
    write_submission(tmp_path / "s.json", {frame.sample_token: rows, tables.sample_tokens(frame.scene_name)[1]: []})
    read = read_submission(tmp_path / "s.json", tables)
    assert [len(boxes) for boxes in read.values()] == [len(rows), 0]
    back = read[frame.sample_token]
    kept = given.select(np.isin(given.scores, [row["detection_score"] for row in rows]))
    for name in ("center_m", "size_wlh_m", "yaw_rad", "velocity_mps", "labels", "scores"):
        np.testing.assert_allclose(getattr(back, name), getattr(kept, name), atol=1e-9)
    (tmp_path / "s.json").write_text("{}")
    with pytest.raises(DataError, match=r"s\.json is no nuScenes submission \(KeyError.*Remove it"):
        read_submission(tmp_path / "s.json", tables)
