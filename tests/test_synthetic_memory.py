"""Why the synthetic world needs memory: what was seen is scored while it is hidden, what never was is not."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from scenes.synthetic.lidar import GROUND, RANGE_M, sweep
from scenes.synthetic.options import WorldOptions
from scenes.synthetic.plan import ScenePlan, plan_scene
from scenes.synthetic.recording import SEEN_PIXELS, Recording, radar_points, record_scene
from schemas.frames import CAMERAS

LEVEL = np.array([[0.0, 1, 0, 0.9], [-1, 0, 0, 0], [0, 0, 1, 1.84], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[ScenePlan, Recording]]:
    root = tmp_path_factory.mktemp("memory")
    for folder in ("can_bus", "samples/LIDAR_TOP", *(f"samples/{camera}" for camera in CAMERAS)):
        (root / folder).mkdir(parents=True)
    options = WorldOptions(frames_per_scene=12, image_width=112, image_height=63)
    plans = [plan_scene(options, name) for name in ("scene-0001", "scene-0002", "scene-0004")]
    return [(plan, record_scene(options, plan, Path(root))) for plan in plans]


def test_hidden_things_seen_before_are_scored(recorded: list[tuple[ScenePlan, Recording]]) -> None:
    hidden = scored = 0
    for plan, recording in recorded:
        seen = recording.sighting.shown >= SEEN_PIXELS
        points = recording.lidar_points + recording.radar_points
        for number, thing in enumerate(plan.things):
            gap = np.linalg.norm(thing.lidar_poses[:, :2] - plan.lidar_ego_poses[:, :2], axis=1)
            for frame in range(len(seen)):
                if gap[frame] < 30 and seen[max(0, frame - 8) : frame + 1, number].any():
                    assert points[frame, number] >= 1
        hidden += int(((points > 0) & ~seen).sum())
        scored += int((points > 0).sum())
    assert 0.05 < hidden / scored < 0.4, "enough to remember, not more than can be"


def test_what_was_never_seen_is_not_scored(recorded: list[tuple[ScenePlan, Recording]]) -> None:
    unknown = 0
    for plan, recording in recorded:
        ever = np.logical_or.accumulate(recording.sighting.shown >= SEEN_PIXELS, axis=0)
        assert (recording.radar_points[~ever] == 0).all()
        for number, thing in enumerate(plan.things):
            near = np.linalg.norm(thing.lidar_poses[:, :2] - plan.lidar_ego_poses[:, :2], axis=1) < 30
            unseen = near & ~ever[:, number] & (recording.lidar_points[:, number] == 0)
            unknown += int(unseen.sum())
    assert unknown > 0


def test_things_hidden_now_come_and_go(recorded: list[tuple[ScenePlan, Recording]]) -> None:
    """Some pass behind others and reappear: remembering pays within a scene."""
    returns = 0
    for _, recording in recorded:
        seen = recording.sighting.shown >= SEEN_PIXELS
        for column in seen.T:
            runs = np.flatnonzero(np.diff(np.concatenate([[0], column.astype(int), [0]])))
            returns += max(0, len(runs) // 2 - 1)
    assert returns >= 3


@settings(max_examples=60)
@given(st.lists(st.integers(0, 8), min_size=1, max_size=30), st.integers(0, 29))
def test_a_radar_point_lasts_as_long_as_the_memory(shown: list[int], leaves: int) -> None:
    pixels = np.array(shown)[:, None]
    in_range = (np.arange(len(shown)) < leaves)[:, None]
    points = radar_points(pixels, in_range)[:, 0]
    for frame, point in enumerate(points):
        recent = any(number >= SEEN_PIXELS for number in shown[max(0, frame - 8) : frame + 1])
        assert point == int(recent and frame < leaves)


def _sweep(poses: list[list[float]], sizes: list[list[float]], things: int) -> tuple[NDArray[np.float32], list[int]]:
    turn = sweep(np.random.default_rng(0), LEVEL, np.array(poses), np.array(sizes), things)
    counts = np.bincount(turn.hits[turn.hits != GROUND], minlength=len(poses))
    return turn.points, counts.tolist()


def test_a_box_hides_what_is_behind_it_from_the_lidar() -> None:
    car, wall = [4.5, 1.9, 1.7], [0.5, 12.0, 3.0]
    _, alone = _sweep([[20.0, 0.0, 0.4]], [car], 1)
    _, behind = _sweep([[20.0, 0.0, 0.4], [12.0, 0.0, 0.0]], [car, wall], 1)
    _, before = _sweep([[20.0, 0.0, 0.4], [28.0, 0.0, 0.0]], [car, wall], 1)
    assert alone == [before[0]]
    assert alone[0] > 10
    assert behind[0] == 0


def test_lidar_points_have_the_published_columns_and_range() -> None:
    points, _ = _sweep([[10.0, 2.0, 0.0], [40.0, 0.0, 0.0]], [[4.0, 2.0, 1.5], [4.0, 2.0, 1.5]], 2)
    assert points.dtype == np.float32
    assert points.shape[1] == 5
    assert np.linalg.norm(points[:, :3], axis=1).max() <= RANGE_M + 0.05
    assert points[:, 3].min() >= 0
    assert points[:, 3].max() <= 255
    assert set(np.unique(points[:, 4])) <= set(range(32))
    assert points[:, 2].min() == pytest.approx(-1.84, abs=1e-5)
