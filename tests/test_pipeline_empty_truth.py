"""Data with little or no ground truth, through the command line: nothing breaks, and it is told."""

import json
import logging
import shutil
from pathlib import Path

import pytest
from made_nuscenes import make_nuscenes
from program import Program

from detectors.weights import save_weights
from pipeline.recipes import demo
from pipeline.training import seeded_detector
from scenes.scene_tables import SceneTables
from scenes.tables import load_tables

VERSION = "v1.0-trainval"


def without_points(data: Path, samples: set[str]) -> SceneTables:
    """Take the points, and so the boxes, from the annotations of some samples."""
    path = data / VERSION / "sample_annotation.json"
    rows = json.loads(path.read_text())
    for row in rows:
        if row["sample_token"] in samples:
            row["num_lidar_pts"] = row["num_radar_pts"] = 0
    path.write_text(json.dumps(rows))
    return load_tables(data, VERSION)


@pytest.fixture
def program(tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    shutil.copytree(tiny_world, tmp_path / "nuscenes")
    return Program(tmp_path / "nuscenes", tmp_path, monkeypatch)


def test_scenes_and_frames_without_any_box_are_trained_on_and_scored(
    program: Program, caplog: pytest.LogCaptureFixture
) -> None:
    tables = load_tables(program.data, VERSION)
    (bare, other), (bare_val, other_val) = tables.scene_names("train"), tables.scene_names("val")
    frames = {*tables.sample_tokens(bare), *tables.sample_tokens(bare_val)}
    frames |= {tables.sample_tokens(other)[0], tables.sample_tokens(other_val)[-1]}
    with caplog.at_level(logging.WARNING, "bev"):
        without_points(program.data, frames)
    assert "2 of 5 scenes without a single annotated object of the ten classes" in caplog.text
    program.succeeded("train-student", "--distiller", "none", "--out", "run")
    score = json.loads(Path("run/evaluation/score.json").read_text())
    assert score["samples"] == 8
    assert score["hidden_and_moving"]["conditions"]["all"]["annotations"] > 0


def test_a_split_without_any_box_scores_zero_and_says_why(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    tables = load_tables(program.data, VERSION)
    names = tables.scene_names("val")
    without_points(program.data, {token for name in names for token in tables.sample_tokens(name)})
    save_weights(seeded_detector(demo().student.detector, 0), Path("student.safetensors"))
    with caplog.at_level(logging.WARNING, "bev"):
        text = program.succeeded("evaluate", "--checkpoint", "student.safetensors", "--out", "score", "--pictures", "1")
    assert "NDS 0.000" in text
    assert "no annotated object in val" in text
    assert "2 of 5 scenes without a single annotated object" in caplog.text
    assert not Path("score/plots").exists()


def test_a_split_without_labels_is_neither_trained_on_nor_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_nuscenes(("scene-0077",), version="v1.0-test")
    made.tables["sample_annotation"], made.tables["instance"] = [], []
    program = Program(made.write(tmp_path / "nuscenes"), tmp_path, monkeypatch)
    save_weights(seeded_detector(demo().student.detector, 0), Path("student.safetensors"))
    asked = ("--version", "v1.0-test", "--split", "test")
    refused = program.refused("evaluate", *asked, "--checkpoint", "student.safetensors")
    assert "a score was asked for on split 'test' of v1.0-test, which has no annotations" in refused
    refused = program.refused("train-student", *asked, "--distiller", "none")
    assert "nothing to train on: of 3 frames (scenes: scene-0077) none has both images and labels" in refused
    assert not Path("out/demo/student-none-seed0/last.pt").exists()
