"""Hidden now, seen before: nuScenes' visibility levels as the scenes hand them out."""

from pathlib import Path

import numpy as np
import pytest
from made_nuscenes import MadeNuscenes, make_nuscenes

from scenes.scene_tables import SceneTables
from scenes.tables import load_tables
from scenes.visibility import Sightings

VERSION, SCENE, FRAMES = "v1.0-trainval", "scene-0003", 6


def made(levels: dict[int, str], without_points: tuple[int, ...] = ()) -> MadeNuscenes:
    """A scene whose first object has the visibility tokens ``levels`` by step, and no points at some steps."""
    world = make_nuscenes((SCENE, "scene-0001"), frames=FRAMES)
    names = ("v0-40", "v40-60", "v60-80", "v80-100")
    world.tables["visibility"] = [
        {"token": f"v{number}", "level": name, "description": ""} for number, name in enumerate(names, start=1)
    ]
    for row in world.tables["sample_annotation"]:
        row["visibility_token"] = "v4"
        if row["instance_token"] == f"{SCENE} object 0":
            step = int(row["token"].rsplit(" ", 1)[1])
            row["visibility_token"] = levels.get(step, "v4")
            if step in without_points:
                row["num_lidar_pts"] = row["num_radar_pts"] = 0
    return world


def sightings_of_the_object(tables: SceneTables) -> list[tuple[int, int] | None]:
    """(visibility, unseen keyframes) of the first object by step, None where it is not among the boxes."""
    found: list[tuple[int, int] | None] = []
    usual = max(len(tables.sightings(token).visibility) for token in tables.sample_tokens(SCENE))
    for token in tables.sample_tokens(SCENE):
        given = tables.sightings(token)
        is_there = len(given.visibility) == usual
        found.append((int(given.visibility[0]), int(given.unseen_keyframes[0])) if is_there else None)
    return found


def test_an_object_that_hides_and_comes_back(tmp_path: Path) -> None:
    levels = {0: "v1", 1: "v2", 2: "v3", 3: "v2", 4: "v1", 5: "v4"}
    tables = load_tables(made(levels).write(tmp_path), VERSION)
    assert sightings_of_the_object(tables) == [(1, -1), (2, -1), (3, 0), (2, 1), (1, 2), (4, 0)]
    last = tables.sightings(tables.sample_tokens(SCENE)[-1])
    assert (last.visibility == 4).all()
    assert (last.unseen_keyframes == 0).all()
    assert len(last.visibility) == len(tables.frame(tables.sample_tokens(SCENE)[-1]).boxes or ())


def test_a_keyframe_without_points_counts_for_the_time_before_though_it_is_no_box(tmp_path: Path) -> None:
    tables = load_tables(made({0: "v4", 1: "v1", 2: "v1"}, without_points=(1,)).write(tmp_path), VERSION)
    assert sightings_of_the_object(tables)[:4] == [(4, 0), None, (1, 2), (4, 0)]


def test_tables_that_do_not_tell_the_visibility(tmp_path: Path) -> None:
    world = made({})
    for row in world.tables["sample_annotation"]:
        row["visibility_token"] = ""
    tables = load_tables(world.write(tmp_path), VERSION)
    assert sightings_of_the_object(tables) == [(0, -1)] * FRAMES


def test_the_hash_of_the_tables_is_that_of_frames_alone(tmp_path: Path) -> None:
    tables = [
        load_tables(made(levels).write(tmp_path / name), VERSION) for name, levels in (("a", {}), ("b", {1: "v1"}))
    ]
    assert tables[0].tables_sha256 == tables[1].tables_sha256


@pytest.mark.parametrize(
    ("visibility", "unseen", "expected"), [(1, 4, True), (1, 5, False), (1, -1, False), (2, 4, False)]
)
def test_hidden_but_seen_lately(visibility: int, unseen: int, expected: bool) -> None:
    given = Sightings(np.array([visibility], dtype=np.int8), np.array([unseen], dtype=np.int16))
    assert given.hidden_but_seen_within(4).tolist() == [expected]
