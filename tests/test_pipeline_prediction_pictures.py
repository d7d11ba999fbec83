"""Pictures of predictions beside ground truth, and of training curves."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_nuscenes import make_nuscenes
from PIL import Image

from pipeline.matching import MatchedFrame, match_split
from pipeline.pictures.chosen_frames import choose_frames
from pipeline.pictures.prediction_drawing import BY_LAST_ALONE, BY_OTHERS_ALONE, FOUND, MISSED, styled_annotations
from pipeline.pictures.prediction_sheet import Prediction, SheetStyle, draw_frames
from pipeline.pictures.training_curves import run_curves, save_curves
from scenes.evaluation import as_detections
from scenes.scene_tables import SceneTables
from scenes.tables import load_tables
from scenes.visibility import Sightings
from schemas.bev_grid import BevGrid
from schemas.boxes import Boxes, empty_boxes

GRID = BevGrid(rows=8, cols=8, extent_m=(-32.0, -32.0, -5.0, 32.0, 32.0, 3.0))


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> SceneTables:
    return load_tables(
        make_nuscenes(("scene-0003", "scene-0012")).write(tmp_path_factory.mktemp("made")), "v1.0-trainval"
    )


@pytest.fixture(scope="module")
def found(tables: SceneTables) -> tuple[MatchedFrame, ...]:
    """Everything is detected but the first object of each frame."""
    frames = [frame for name in tables.scene_names("val") for frame in tables.frames(name)]
    boxes = {frame.sample_token: frame.boxes for frame in frames if frame.boxes is not None}
    return match_split(
        {token: as_detections(each).select(np.arange(len(each)) > 0) for token, each in boxes.items()}, tables, "val"
    )


@pytest.fixture(scope="module")
def nothing(tables: SceneTables) -> tuple[MatchedFrame, ...]:
    tokens = [token for name in tables.scene_names("val") for token in tables.sample_tokens(name)]
    return match_split(dict.fromkeys(tokens, empty_boxes(scored=True)), tables, "val")


def test_two_detectors_are_shown_on_the_same_spread_frames(
    tables: SceneTables, found: tuple[MatchedFrame, ...], nothing: tuple[MatchedFrame, ...], tmp_path: Path
) -> None:
    sheet = SheetStyle("a heading", GRID, tables.data_root)
    draw_frames([Prediction("one", found)], 2, sheet, tmp_path / "one")
    draw_frames([Prediction("nothing", nothing), Prediction("one", found)], 2, sheet, tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    assert [name.rsplit("-", 1)[0] for name in names] == ["scene-0003", "scene-0012"]
    one, two = (np.asarray(Image.open(tmp_path / kind / names[0]).convert("RGB")) for kind in ("one", "two"))
    assert two.shape[1] > one.shape[1] > 800, "a map for each detector"
    assert is_drawn(one, "#4de1ff"), "found objects"
    assert is_drawn(one, "#ffe14d"), "the missed one"
    assert is_drawn(two, "#66ff8c"), "what the second alone has found"


def is_drawn(picture: np.ndarray, color: str) -> bool:
    wanted = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)])
    return bool((np.abs(picture.astype(int) - wanted).max(axis=-1) <= 8).sum() > 20)


def test_annotations_are_coloured_by_who_found_them(found: tuple[MatchedFrame, ...]) -> None:
    frame = found[0]
    count = len(frame.annotated)
    hidden = Sightings(np.array([1] + [4] * (count - 1), dtype=np.int8), np.zeros(count, dtype=np.int16))
    last = replace(frame, sightings=hidden, match=np.arange(1, count))
    first = replace(last, detected=frame.detected.select(np.arange(2)), match=np.array([0, 1]))
    groups = {(style.color, style.line): len(boxes) for boxes, style in styled_annotations([first, last]) if len(boxes)}
    assert groups == {
        (BY_OTHERS_ALONE.color, "--"): 1,
        (FOUND.color, "-"): 1,
        (BY_LAST_ALONE.color, "-"): count - 2,
    }
    alone = {(style.color, style.line): len(boxes) for boxes, style in styled_annotations([last]) if len(boxes)}
    assert alone == {(MISSED.color, "--"): 1, (FOUND.color, "-"): count - 1}


def test_frames_with_most_annotations_are_chosen_from_equal_stretches(found: tuple[MatchedFrame, ...]) -> None:
    def with_annotations(count: int) -> MatchedFrame:
        some = found[0].annotated.select(np.arange(count))
        return replace(found[0], annotated=some)

    frames = [with_annotations(count) for count in (0, 3, 1, 2, 2, 0)]
    assert choose_frames(frames, 2) == (1, 3)
    assert choose_frames(frames, 1) == (1,)
    assert choose_frames(frames, 9) == (0, 1, 2, 3, 4, 5)
    assert choose_frames(frames, 0) == choose_frames([], 4) == ()


def test_a_frame_without_any_box_is_drawn(tables: SceneTables, found: tuple[MatchedFrame, ...], tmp_path: Path) -> None:
    none = np.zeros(0, dtype=np.int64)
    sightings = Sightings(np.zeros(0, dtype=np.int8), np.zeros(0, dtype=np.int16))
    nothing: Boxes = empty_boxes(scored=True)
    bare = MatchedFrame(found[0].frame, empty_boxes(), sightings, nothing, none)
    draw_frames([Prediction("one", [bare])], 1, SheetStyle("a heading", GRID, tables.data_root), tmp_path)
    assert len(list(tmp_path.glob("*.png"))) == 1


def log_of(folder: Path, steps: int, terms: tuple[str, ...]) -> Path:
    folder.mkdir()
    lines = [
        {"step": step, "terms": dict.fromkeys(terms, 1 / step), "lr": 0.1, "grad_norm": None if step == 1 else 2.0}
        for step in range(1, steps + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "scores.jsonl").write_text(json.dumps({"step": steps, "nds": 0.25}) + "\n")
    return folder


def test_curves_of_both_runs(tmp_path: Path) -> None:
    with_teacher = log_of(tmp_path / "taught", 60, ("detection/loss_cls", "detection/loss_bbox", "pkd/bev"))
    without = log_of(tmp_path / "alone", 60, ("detection/loss_cls", "detection/loss_bbox"))
    curves = run_curves(with_teacher)
    assert set(curves) == {
        *("detection/loss_cls", "detection/loss_bbox", "pkd/bev"),
        *("all detection terms", "learning rate", "gradient norm", "NDS"),
    }
    steps, values = curves["all detection terms"]
    np.testing.assert_array_equal(steps, np.arange(1, 61))
    np.testing.assert_allclose(values, 2 / np.arange(1, 61))
    assert len(curves["gradient norm"][0]) == 59, "an infinite norm is not logged"
    save_curves([("pkd", with_teacher), ("undistilled", without)], tmp_path / "curves.png")
    picture = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB"))
    assert is_drawn(picture, "#d95f02")
    assert is_drawn(picture, "#1f78b4")


def test_a_run_of_one_logged_step_has_curves_and_one_without_any_an_empty_picture(tmp_path: Path) -> None:
    save_curves([("none", log_of(tmp_path / "one", 1, ("detection/loss_cls",)))], tmp_path / "one.png")
    (tmp_path / "empty").mkdir()
    save_curves([("none", tmp_path / "empty")], tmp_path / "empty.png")
    assert (tmp_path / "one.png").stat().st_size > (tmp_path / "empty.png").stat().st_size > 0
