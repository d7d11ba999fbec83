"""Which annotations count as found: the official matching, at one operating point that suits every detector."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_nuscenes import make_nuscenes

from pipeline.hidden_and_moving import CONDITIONS, ConditionScore, as_document, hidden_and_moving, table_rows
from pipeline.matching import MatchedFrame, match_frame, match_split
from scenes.evaluation import as_detections
from scenes.scene_tables import SceneTables
from scenes.tables import load_tables
from scenes.visibility import Sightings
from schemas.boxes import CLASS_NAMES, Boxes, empty_boxes

CAR, CONE = CLASS_NAMES.index("car"), CLASS_NAMES.index("traffic_cone")


def boxes(x_m: list[float], labels: list[int] | None = None, scores: list[float] | None = None) -> Boxes:
    """Boxes on the x axis."""
    count = len(x_m)
    return Boxes(
        center_m=np.array([[x, 0.0, 1.0] for x in x_m]).reshape(count, 3),
        size_wlh_m=np.ones((count, 3)),
        yaw_rad=np.zeros(count),
        velocity_mps=np.zeros((count, 2)),
        has_velocity=np.ones(count, dtype=np.bool_),
        labels=np.array([CAR] * count if labels is None else labels, dtype=np.int64),
        scores=None if scores is None else np.array(scores, dtype=np.float64),
    )


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> SceneTables:
    return load_tables(
        make_nuscenes(("scene-0003", "scene-0012")).write(tmp_path_factory.mktemp("made")), "v1.0-trainval"
    )


def perfect(tables: SceneTables) -> dict[str, Boxes]:
    frames = [frame for name in tables.scene_names("val") for frame in tables.frames(name)]
    return {frame.sample_token: as_detections(frame.boxes) for frame in frames if frame.boxes is not None}


@pytest.mark.parametrize(
    ("annotated", "detected", "expected"),
    [
        (boxes([0, 5]), boxes([4.9, 0.1]), [1, 0]),
        (boxes([0.0]), boxes([1.99]), [0]),
        (boxes([0.0]), boxes([2.0]), [-1]),  # nearer than 2 m, as the devkit compares
        (boxes([0.0]), boxes([1.0, 0.0]), [0, -1]),  # the better one takes it, though it is farther
        (boxes([0.0, 1.5]), boxes([0.0, 0.1]), [0, 1]),  # taken: the next nearest
        (boxes([0.0]), boxes([0.0], labels=[CONE]), [-1]),
        (empty_boxes(), boxes([0.0]), [-1]),
        (boxes([0.0]), empty_boxes(), []),
    ],
)
def test_greedy_matching_of_a_frame(annotated: Boxes, detected: Boxes, expected: list[int]) -> None:
    assert match_frame(annotated, detected).tolist() == expected


def test_a_class_keeps_as_many_detections_as_it_has_annotations(tables: SceneTables) -> None:
    """The best ones of the whole split; scores of one class say nothing about another's."""
    exact = perfect(tables)
    shifted = {
        token: replace(found, center_m=found.center_m + np.array([7.0, 0.0, 0.0]), scores=found.scores * 0.5)
        for token, found in exact.items()
        if found.scores is not None
    }
    both = {token: joined(exact[token], shifted[token]) for token in exact}
    frames = match_split(both, tables, "val")
    assert all(frame.found().all() for frame in frames)
    assert all((frame.match >= 0).all() for frame in frames)
    assert [len(frame.detected) for frame in frames] == [len(frame.annotated) for frame in frames]

    confident = {
        token: replace(found, scores=found.scores * 3) for token, found in shifted.items() if found.scores is not None
    }
    wrong = match_split({token: joined(exact[token], confident[token]) for token in exact}, tables, "val")
    assert sum(int((frame.match >= 0).sum()) for frame in wrong) < 0.3 * sum(len(frame.annotated) for frame in wrong)


def joined(first: Boxes, second: Boxes) -> Boxes:
    fields = first.__dataclass_fields__
    return Boxes(**{name: np.concatenate([getattr(first, name), getattr(second, name)]) for name in fields})


def test_what_the_score_does_not_count_is_not_counted(tmp_path: Path) -> None:
    """Objects beyond their class's range; those without points are no boxes at all."""
    made = make_nuscenes(("scene-0003",))
    row = next(row for row in made.tables["sample_annotation"] if row["instance_token"] == "scene-0003 object 0")
    row["translation"][0] += 500
    tables = load_tables(made.write(tmp_path), "v1.0-trainval")
    frames = match_split(perfect(tables), tables, "val")
    counts = [(len(frame.annotated), len(frame.frame.boxes or ())) for frame in frames]
    assert counts[0][0] == counts[0][1] - 1
    assert counts[1][0] == counts[1][1]
    assert all(len(frame.sightings.visibility) == len(frame.annotated) for frame in frames)


def test_conditions_are_counted_apart(tables: SceneTables) -> None:
    annotated = replace(boxes([0, 10, 20, 30]), velocity_mps=np.array([[0, 0], [2, 0], [0, 1.0], [0, 0.9]]))
    detected = replace(boxes([0, 10, 20], scores=[1, 1, 1]), velocity_mps=np.array([[0, 3], [2, 1], [0, 0.5]]))
    frame = tables.frames("scene-0003")[0]
    sightings = Sightings(np.array([4, 1, 1, 1], dtype=np.int8), np.array([0, 2, 9, -1], dtype=np.int16))
    scores = hidden_and_moving([MatchedFrame(frame, annotated, sightings, detected, np.array([0, 1, 2]))] * 2)
    assert scores["all"] == ConditionScore(8, 6, 1.5)
    assert scores["moving"] == ConditionScore(4, 4, 0.75)
    assert scores["hidden"] == ConditionScore(6, 4, 0.75)
    assert scores["hidden_seen_before"] == ConditionScore(2, 2, 1.0)
    assert scores["hidden_moving"] == ConditionScore(4, 4, 0.75)
    assert scores["hidden"].recall == pytest.approx(2 / 3)
    assert as_document(scores)["conditions"]["all"]["recall"] == 0.75
    assert not as_document(scores)["official"]


def test_velocities_that_are_unknown_or_undefined_have_no_error(tables: SceneTables) -> None:
    annotated = replace(boxes([0, 10], labels=[CONE, CAR]), has_velocity=np.array([True, False]))
    detected = replace(boxes([0, 10], labels=[CONE, CAR], scores=[1, 1]), velocity_mps=np.ones((2, 2)))
    frame = tables.frames("scene-0003")[0]
    sightings = Sightings(np.zeros(2, dtype=np.int8), np.full(2, -1, dtype=np.int16))
    scores = hidden_and_moving([MatchedFrame(frame, annotated, sightings, detected, np.array([0, 1]))])
    assert scores["all"] == ConditionScore(2, 2, None)
    assert scores["hidden"] == ConditionScore(0, 0, None)
    assert scores["hidden"].recall is None
    assert table_rows(scores)[2] == (CONDITIONS["hidden"], "0", "-", "-")
