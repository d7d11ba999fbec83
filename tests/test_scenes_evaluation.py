"""The official score: perfect, empty, worse, and the submissions that the devkit would choke on."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_nuscenes import make_nuscenes
from numpy.typing import NDArray
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.nuscenes import NuScenes

from scenes.evaluation import TP_ERRORS, as_detections, evaluate, require_labels
from scenes.scene_tables import SceneTables
from scenes.submission import (
    CLASS_RANGE_M,
    MAX_BOXES_PER_SAMPLE,
    SUBMISSION_FILE,
    attribute_name,
    submission_boxes,
)
from scenes.tables import load_tables
from schemas.boxes import CLASS_NAMES, Boxes, empty_boxes
from schemas.errors import DataError

VERSION, SCENES = "v1.0-trainval", ("scene-0003", "scene-0012")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> SceneTables:
    made = make_nuscenes((*SCENES, "scene-0001"))
    made.splits = {"mine": [SCENES[1]]}
    return load_tables(made.write(tmp_path_factory.mktemp("made")), VERSION)


def perfect(tables: SceneTables, split: str = "val") -> dict[str, Boxes]:
    frames = [frame for name in tables.scene_names(split) for frame in tables.frames(name)]
    return {frame.sample_token: as_detections(frame.boxes) for frame in frames if frame.boxes is not None}


def moved(boxes: Boxes, offset_m: float) -> Boxes:
    fields = {name: getattr(boxes, name) for name in boxes.__dataclass_fields__}
    return Boxes(**(fields | {"center_m": boxes.center_m + np.array([offset_m, 0, 0])}))


def repeated(boxes: Boxes, times: int, scores: NDArray[np.float64]) -> Boxes:
    chosen = boxes.select(np.tile(np.arange(len(boxes)), times))
    fields = {name: getattr(chosen, name) for name in chosen.__dataclass_fields__}
    return Boxes(**(fields | {"scores": scores}))


@pytest.mark.parametrize("split", ["val", "mine"])
def test_the_annotations_as_detections_score_one(tables: SceneTables, tmp_path: Path, split: str) -> None:
    score = evaluate(perfect(tables, split), tables, split, tmp_path)
    assert score.nds == pytest.approx(1.0, abs=1e-9)
    assert score.mean_ap == pytest.approx(1.0, abs=1e-9)
    assert score.tp_errors == pytest.approx(dict.fromkeys(TP_ERRORS.values(), 0.0), abs=1e-9)
    assert tuple(score.class_ap) == CLASS_NAMES
    assert np.isnan(score.class_tp_errors["traffic_cone"]["mAOE"])
    assert (score.split, score.samples) == (split, 6 if split == "val" else 3)
    as_read = json.loads(json.dumps(score.as_dict(), allow_nan=False))
    assert as_read["nds"] == score.nds
    assert as_read["class_tp_errors"]["traffic_cone"]["mAOE"] is None


def test_the_devkit_stays_silent(tables: SceneTables, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    evaluate(perfect(tables), tables, "val", tmp_path)
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == [SUBMISSION_FILE]


def test_displaced_detections_score_their_displacement(tables: SceneTables, tmp_path: Path) -> None:
    detections = {token: moved(boxes, 0.75) for token, boxes in perfect(tables).items()}
    score = evaluate(detections, tables, "val", tmp_path)
    assert score.tp_errors["mATE"] == pytest.approx(0.75, abs=1e-3)
    assert score.tp_errors["mAOE"] == pytest.approx(0.0, abs=1e-6)
    assert 0.5 < score.mean_ap < 0.8  # matched at 1, 2 and 4 m, not at 0.5 m
    assert 0.5 < score.nds < 0.9


@pytest.mark.parametrize("kind", ["empty", "out of range"])
def test_no_detection_at_all_is_a_score_of_zero(tables: SceneTables, tmp_path: Path, kind: str) -> None:
    detections = {
        token: empty_boxes(scored=True) if kind == "empty" else moved(boxes, 500.0)
        for token, boxes in perfect(tables).items()
    }
    score = evaluate(detections, tables, "val", tmp_path)
    assert (score.nds, score.mean_ap) == (0.0, 0.0)
    assert set(score.tp_errors.values()) == {1.0}
    assert score.samples == 6


def test_zero_has_the_form_of_the_devkits_own_worst_score(tables: SceneTables, tmp_path: Path) -> None:
    """One false detection is enough to make the devkit compute it."""
    detections = {token: empty_boxes(scored=True) for token in perfect(tables)}
    zero = evaluate(detections, tables, "val", tmp_path).as_dict()
    token, boxes = next(iter(perfect(tables).items()))
    car = boxes.select(boxes.labels == CLASS_NAMES.index("car"))
    official = evaluate(detections | {token: moved(car, 9.0)}, tables, "val", tmp_path).as_dict()
    np.testing.assert_equal(zero, official)


def test_a_split_without_any_box_is_a_score_of_zero(tmp_path: Path) -> None:
    made = make_nuscenes(SCENES[:1])
    made.tables["sample_annotation"] = made.tables["sample_annotation"][-3:]  # of no detection class
    tables = load_tables(made.write(tmp_path / "data"), VERSION)
    boxes = perfect(load_tables(make_nuscenes(SCENES[:1]).write(tmp_path / "other"), VERSION))
    assert evaluate(boxes, tables, "val", tmp_path / "out").nds == 0.0


def test_a_class_without_annotations_counts_as_zero(tmp_path: Path) -> None:
    made = make_nuscenes(SCENES[:1])
    gone = {row["token"] for row in made.tables["instance"] if row["category_token"] == "category vehicle.trailer"}
    made.tables["sample_annotation"] = [
        row for row in made.tables["sample_annotation"] if row["instance_token"] not in gone
    ]
    tables = load_tables(made.write(tmp_path / "data"), VERSION)
    score = evaluate(perfect(tables), tables, "val", tmp_path / "out")
    assert score.class_ap["trailer"] == 0.0
    assert score.mean_ap == pytest.approx(0.9, abs=1e-9)
    assert score.tp_errors["mATE"] == pytest.approx(0.1, abs=1e-9)


def test_an_unlabelled_version_is_refused(tmp_path: Path) -> None:
    made = make_nuscenes(("scene-0077",), version="v1.0-test")
    made.tables["sample_annotation"], made.tables["instance"] = [], []
    tables = load_tables(made.write(tmp_path), "v1.0-test")
    with pytest.raises(
        DataError, match=r"a score was asked for on split 'test' of v1.0-test, which has no annotations"
    ):
        evaluate({}, tables, "test", tmp_path)
    with pytest.raises(DataError, match="a score was asked for"):
        require_labels(tables, "test")


@pytest.mark.parametrize(("change", "message"), [("missing", "1 are missing and 0"), ("extra", "0 are missing and 1")])
def test_detections_must_be_of_exactly_the_splits_samples(
    tables: SceneTables, tmp_path: Path, change: str, message: str
) -> None:
    detections = perfect(tables)
    if change == "missing":
        detections.popitem()
    else:
        detections["scene-0001 sample 0"] = empty_boxes(scored=True)
    with pytest.raises(DataError, match=rf"needs detections for exactly its 6 samples: {message}"):
        evaluate(detections, tables, "val", tmp_path)


@pytest.mark.parametrize("name", ["center_m", "size_wlh_m", "yaw_rad", "velocity_mps", "scores"])
def test_detections_that_are_not_finite_are_refused(tables: SceneTables, name: str) -> None:
    token, boxes = next(iter(perfect(tables).items()))
    getattr(boxes, name).flat[0] = np.nan
    with pytest.raises(DataError, match=rf"detections of sample {token}: {name} must be finite.*got nan in 1 of 10"):
        submission_boxes(tables.frame(token), boxes)


def test_a_size_of_zero_is_refused(tables: SceneTables) -> None:
    token, boxes = next(iter(perfect(tables).items()))
    boxes.size_wlh_m[3, 1] = 0.0
    with pytest.raises(DataError, match=r"size_wlh_m must be finite and positive, got 0.0 in 1 of 10"):
        submission_boxes(tables.frame(token), boxes)


def test_the_best_500_boxes_are_kept(tables: SceneTables) -> None:
    token, boxes = next(iter(perfect(tables).items()))
    scores = np.random.default_rng(0).random(600)
    rows = submission_boxes(tables.frame(token), repeated(boxes, 60, scores))
    assert len(rows) == MAX_BOXES_PER_SAMPLE
    assert [row["detection_score"] for row in rows] == sorted(scores, reverse=True)[:MAX_BOXES_PER_SAMPLE]


def test_the_devkit_accepts_500_boxes(tables: SceneTables, tmp_path: Path) -> None:
    scores = np.linspace(1, 0, 600)
    detections = {token: repeated(boxes, 60, scores) for token, boxes in perfect(tables, "mine").items()}
    assert evaluate(detections, tables, "mine", tmp_path).nds > 0.5


def test_boxes_beyond_the_range_of_their_class_are_dropped(tables: SceneTables) -> None:
    frame = tables.frames(SCENES[0])[0]
    assert frame.boxes is not None
    lidar_from_ego = np.linalg.inv(frame.global_from_lidar) @ frame.global_from_ego
    for name, limit_m in CLASS_RANGE_M.items():
        box = as_detections(frame.boxes).select(frame.boxes.labels == CLASS_NAMES.index(name))
        for distance_m in (limit_m - 0.2, limit_m + 0.2):
            box.center_m[0] = lidar_from_ego[:3, :3] @ [distance_m, 0, 0] + lidar_from_ego[:3, 3]
            assert len(submission_boxes(frame, box)) == (distance_m < limit_m), name


def test_the_submission_file_names_every_sample_and_holds_plain_numbers(tables: SceneTables, tmp_path: Path) -> None:
    detections = perfect(tables)
    token = next(iter(detections))
    detections[token] = empty_boxes(scored=True)
    evaluate(detections, tables, "val", tmp_path)
    content = json.loads((tmp_path / SUBMISSION_FILE).read_text())
    assert content["results"].keys() == detections.keys()
    assert content["results"][token] == []
    row = content["results"][f"{SCENES[0]} sample 1"][0]
    assert {name: type(value).__name__ for name, value in row.items()} == {
        "sample_token": "str",
        "translation": "list",
        "size": "list",
        "rotation": "list",
        "velocity": "list",
        "detection_name": "str",
        "detection_score": "float",
        "attribute_name": "str",
    }


def test_annotations_survive_the_way_through_a_submission(tables: SceneTables) -> None:
    devkit = NuScenes(version=VERSION, dataroot=str(tables.data_root), verbose=False)
    for frame in tables.frames(SCENES[1]):
        assert frame.boxes is not None
        rows = {row["detection_name"]: row for row in submission_boxes(frame, as_detections(frame.boxes))}
        for token in devkit.get("sample", frame.sample_token)["anns"]:
            annotation = devkit.get("sample_annotation", token)
            name = category_to_detection_name(annotation["category_name"])
            if name is not None:
                np.testing.assert_allclose(rows[name]["translation"], annotation["translation"], atol=1e-9)
                np.testing.assert_allclose(rows[name]["size"], annotation["size"])
                np.testing.assert_allclose(rows[name]["velocity"], devkit.box_velocity(token)[:2], atol=1e-9)
                np.testing.assert_allclose(
                    np.abs(np.dot(rows[name]["rotation"], annotation["rotation"])), 1.0, atol=1e-12
                )


@pytest.mark.parametrize(
    ("class_name", "moving", "standing"),
    [
        ("car", "vehicle.moving", "vehicle.parked"),
        ("truck", "vehicle.moving", "vehicle.parked"),
        ("trailer", "vehicle.moving", "vehicle.parked"),
        ("construction_vehicle", "vehicle.moving", "vehicle.parked"),
        ("bus", "vehicle.moving", "vehicle.stopped"),
        ("pedestrian", "pedestrian.moving", "pedestrian.standing"),
        ("bicycle", "cycle.with_rider", "cycle.without_rider"),
        ("motorcycle", "cycle.with_rider", "cycle.without_rider"),
        ("barrier", "", ""),
        ("traffic_cone", "", ""),
    ],
)
def test_attributes_follow_class_and_speed(class_name: str, moving: str, standing: str) -> None:
    assert attribute_name(class_name, 0.21) == moving
    assert attribute_name(class_name, 0.2) == standing


def test_class_ranges_are_those_of_the_official_configuration() -> None:
    config = config_factory("detection_cvpr_2019")
    assert dict(config.class_range) == CLASS_RANGE_M
    assert config.max_boxes_per_sample == MAX_BOXES_PER_SAMPLE
