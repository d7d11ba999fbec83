"""Scenes are streamed in order with their own memory, side by side or one by one."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from train_world import CPU, SCENES, tiny_detector, tiny_tables

from detectors.inputs import batch_of
from scenes.images import load_inputs
from scenes.scene_tables import SceneTables
from schemas.boxes import Boxes
from schemas.errors import DataError
from train.inference import InferenceOptions, detect, side_by_side


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> SceneTables:
    return tiny_tables(tmp_path_factory.getbasetemp() / "train-world")


def detections(tables: SceneTables, **options) -> dict[str, Boxes]:
    return detect(tiny_detector(), tables, SCENES, InferenceOptions(CPU, **options), lambda _: None)


def detected_alone(tables: SceneTables, sample_token: str) -> Boxes:
    detector = tiny_detector().eval()
    inputs = load_inputs(tables.frame(sample_token), tables.data_root, detector.config.preprocessing)
    with torch.no_grad():
        (alone,) = detector.decode(detector.features(batch_of([inputs]), None)[0])
    return alone


def assert_same(found: dict[str, Boxes], expected: dict[str, Boxes], atol: float) -> None:
    assert list(found) == list(expected)
    for token, boxes in found.items():
        assert boxes.scores is not None
        assert expected[token].scores is not None
        np.testing.assert_allclose(np.sort(boxes.scores), np.sort(expected[token].scores), atol=atol)
        assert len(boxes) == len(expected[token]) > 0


def test_equal_to_streaming_by_hand(tables: SceneTables) -> None:
    detector = tiny_detector().eval()
    expected: dict[str, Boxes] = {}
    for scene in SCENES:
        state = None
        for frame in tables.frames(scene):
            with torch.no_grad():
                inputs = load_inputs(frame, tables.data_root, detector.config.preprocessing)
                features, state = detector.features(batch_of([inputs]), state)
                (expected[frame.sample_token],) = detector.decode(features)
    assert_same(detections(tables), expected, atol=0)


@pytest.mark.parametrize("scenes_per_batch", [2, 3, 8])
def test_scenes_side_by_side_change_only_rounding(tables: SceneTables, scenes_per_batch: int) -> None:
    found = detections(tables, scenes_per_batch=scenes_per_batch, decode_threads=3, look_ahead=1)
    assert_same(found, detections(tables), atol=1e-5)


def test_history_matters(tables: SceneTables) -> None:
    last = tables.sample_tokens(SCENES[0])[-1]
    alone = detected_alone(tables, last)
    assert not np.allclose(np.sort(alone.scores), np.sort(detections(tables)[last].scores), atol=1e-6)


def test_without_history_every_frame_stands_for_itself(tables: SceneTables) -> None:
    last = tables.sample_tokens(SCENES[0])[-1]
    alone = detected_alone(tables, last)
    np.testing.assert_allclose(detections(tables, history=False)[last].scores, alone.scores, atol=1e-6)


def test_every_frame_is_told_and_the_mode_comes_back(tables: SceneTables) -> None:
    told: list[str] = []
    detector = tiny_detector().train()
    found = detect(detector, tables, SCENES[:2], InferenceOptions(CPU, scenes_per_batch=2), told.append)
    assert sorted(told) == sorted(found)
    assert set(found) == {token for name in SCENES[:2] for token in tables.sample_tokens(name)}
    assert detector.training


def test_a_missing_image_is_named(tables: SceneTables, tmp_path: Path) -> None:
    shutil.copytree(tables.data_root.parent, tmp_path / "world")
    own = tiny_tables(tmp_path / "world")
    frame = own.frames(SCENES[1])[2]
    (own.data_root / frame.camera_paths[0]).unlink()
    with pytest.raises(DataError, match=rf"sample {frame.sample_token} .*CAM_FRONT.*is missing"):
        detections(own)


@given(lengths=st.lists(st.integers(1, 6), min_size=0, max_size=7), width=st.integers(1, 4))
def test_lanes_hold_one_scene_at_a_time_in_order(lengths: list[int], width: int) -> None:
    scenes = [[f"{scene}:{step}" for step in range(length)] for scene, length in enumerate(lengths)]
    by_lane: dict[int, list[str]] = {}
    alive = list(range(width))
    for tick in side_by_side(scenes, width):
        assert len(tick.lanes) <= width
        assert list(tick.lanes) == sorted(set(tick.lanes) & set(alive))
        alive = list(tick.lanes)  # a lane that runs out of scenes never comes back
        for lane, token in zip(tick.lanes, tick.sample_tokens, strict=True):
            by_lane.setdefault(lane, []).append(token)
    for tokens in by_lane.values():
        whole = [token for token in tokens if token.endswith(":0")]
        assert tokens == [token for first in whole for token in scenes[int(first.split(":")[0])]]
    assert sorted(token for tokens in by_lane.values() for token in tokens) == sorted(
        t for scene in scenes for t in scene
    )
