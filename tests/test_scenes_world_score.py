"""The synthetic world is genuine nuScenes: its validation split scores 1 when everything is detected."""

import json
import math
from pathlib import Path

import pytest

from scenes.evaluation import as_detections, evaluate, score_submission
from scenes.scene_tables import SceneTables
from scenes.submission import submission_boxes, write_submission
from scenes.tables import load_tables

VERSION = "v1.0-trainval"


@pytest.fixture(scope="module")
def tables(tiny_world: Path) -> SceneTables:
    return load_tables(tiny_world, VERSION)


def test_a_perfect_submission_scores_one(tables: SceneTables, tmp_path: Path) -> None:
    folder = tables.data_root / VERSION
    annotations = json.loads((folder / "sample_annotation.json").read_text())
    attributes = {row["token"]: row["name"] for row in json.loads((folder / "attribute.json").read_text())}
    results = {}
    for frame in (frame for name in tables.scene_names("val") for frame in tables.frames(name)):
        assert frame.boxes is not None
        rows = submission_boxes(frame, as_detections(frame.boxes))
        here = [row for row in annotations if row["sample_token"] == frame.sample_token]
        for row in rows:
            nearest = min(here, key=lambda other: math.dist(other["translation"], row["translation"]))
            row["attribute_name"] = "".join(attributes[token] for token in nearest["attribute_tokens"])
        results[frame.sample_token] = rows
    write_submission(tmp_path / "perfect.json", results)
    score = score_submission(tmp_path / "perfect.json", tables, "val")
    assert score.nds == pytest.approx(1.0, abs=1e-9)
    assert score.mean_ap == pytest.approx(1.0, abs=1e-9)


def test_annotations_as_detections_lose_only_by_guessed_attributes(tables: SceneTables, tmp_path: Path) -> None:
    frames = [frame for name in tables.scene_names("val") for frame in tables.frames(name)]
    detections = {frame.sample_token: as_detections(frame.boxes) for frame in frames if frame.boxes is not None}
    score = evaluate(detections, tables, "val", tmp_path)
    assert score.mean_ap == pytest.approx(1.0, abs=1e-9)
    for error in ("mATE", "mASE", "mAOE", "mAVE"):
        assert score.tp_errors[error] == pytest.approx(0.0, abs=1e-9)
    assert score.nds == pytest.approx(1.0 - score.tp_errors["mAAE"] / 10, abs=1e-9)
