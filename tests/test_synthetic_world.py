"""The synthetic world as nuscenes-devkit sees it: genuine tables, files, chains and splits."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nuscenes import NuScenes
from nuscenes.can_bus.can_bus_api import NuScenesCanBus
from nuscenes.eval.detection.utils import category_to_detection_name, detection_name_to_rel_attributes
from nuscenes.utils.data_classes import LidarPointCloud
from nuscenes.utils.geometry_utils import points_in_box
from nuscenes.utils.splits import get_scenes_of_split, train, val
from PIL import Image
from tiny_world import TINY_OPTIONS

from scenes.synthetic.options import TABLE_VERSION
from scenes.synthetic.plan import ScenePlan, plan_scene
from scenes.synthetic.vocabulary import token
from schemas.boxes import CLASS_NAMES
from schemas.frames import CAMERAS

CHANNELS = {"LIDAR_TOP", *CAMERAS}
FOREIGN_KEYS = {
    "scene": {"log_token": "log", "first_sample_token": "sample", "last_sample_token": "sample"},
    "sample": {"scene_token": "scene"},
    "calibrated_sensor": {"sensor_token": "sensor"},
    "sample_data": {
        "sample_token": "sample",
        "ego_pose_token": "ego_pose",
        "calibrated_sensor_token": "calibrated_sensor",
    },
    "instance": {
        "category_token": "category",
        "first_annotation_token": "sample_annotation",
        "last_annotation_token": "sample_annotation",
    },
    "sample_annotation": {
        "sample_token": "sample",
        "instance_token": "instance",
        "visibility_token": "visibility",
    },
}


@pytest.fixture(scope="module")
def nusc(tiny_world: Path) -> NuScenes:
    return NuScenes(TABLE_VERSION, str(tiny_world), verbose=False)


@pytest.fixture(scope="module")
def raw(tiny_world: Path) -> dict[str, list[dict[str, Any]]]:
    """The tables as written, before the devkit decorates them."""
    folder = tiny_world / TABLE_VERSION
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json") if path.stem != "splits"}


@pytest.fixture(scope="module")
def plans(nusc: NuScenes) -> dict[str, ScenePlan]:
    return {scene["name"]: plan_scene(TINY_OPTIONS, scene["name"]) for scene in nusc.scene}


def test_the_devkit_finds_every_scene_in_its_split(nusc: NuScenes) -> None:
    names = {scene["name"] for scene in nusc.scene}
    tune = get_scenes_of_split("tune", nusc)
    assert len(names & set(train)) == TINY_OPTIONS.train_scenes
    assert len(names & set(val)) == TINY_OPTIONS.val_scenes
    assert len(names & set(tune)) == len(tune) == TINY_OPTIONS.tune_scenes
    assert len(names) == TINY_OPTIONS.train_scenes + TINY_OPTIONS.val_scenes + TINY_OPTIONS.tune_scenes


def test_every_keyframe_has_its_recordings(nusc: NuScenes, tiny_world: Path) -> None:
    size = (TINY_OPTIONS.image_width, TINY_OPTIONS.image_height)
    assert len(nusc.sample) == len(nusc.scene) * TINY_OPTIONS.frames_per_scene
    for sample in nusc.sample:
        assert set(sample["data"]) == CHANNELS
        for channel in CAMERAS:
            row = nusc.get("sample_data", sample["data"][channel])
            with Image.open(tiny_world / row["filename"]) as image:
                assert image.size == (row["width"], row["height"]) == size
                assert image.mode == "RGB"


def test_cameras_fire_just_before_the_keyframe_from_where_the_car_was(nusc: NuScenes) -> None:
    for sample in nusc.sample:
        keyframe = nusc.get("sample_data", sample["data"]["LIDAR_TOP"])
        assert keyframe["timestamp"] == sample["timestamp"]
        here = nusc.get("ego_pose", keyframe["ego_pose_token"])
        for channel in CAMERAS:
            row = nusc.get("sample_data", sample["data"][channel])
            pose = nusc.get("ego_pose", row["ego_pose_token"])
            early_us = sample["timestamp"] - row["timestamp"]
            assert 500 <= early_us <= 43_000
            assert pose["timestamp"] == row["timestamp"]
            assert np.linalg.norm(np.subtract(here["translation"], pose["translation"])) <= 12 * early_us * 1e-6


def test_foreign_keys_lead_somewhere_and_tokens_are_unique(raw: dict[str, list[dict[str, Any]]]) -> None:
    tokens = {table: [row["token"] for row in rows] for table, rows in raw.items()}
    assert len(tokens) == 13
    for table, own in tokens.items():
        assert len(set(own)) == len(own), table
    for table, keys in FOREIGN_KEYS.items():
        for key, target in keys.items():
            assert {row[key] for row in raw[table]} <= set(tokens[target]), (table, key)
    assert {name for row in raw["sample_annotation"] for name in row["attribute_tokens"]} <= set(tokens["attribute"])
    assert set(raw["map"][0]["log_tokens"]) == set(tokens["log"])
    assert all(len(name) == 32 and int(name, 16) >= 0 for name in tokens["sample"])


@pytest.mark.parametrize("table", ["sample", "sample_data", "sample_annotation"])
def test_chains_run_both_ways_and_forward_in_time(table: str, nusc: NuScenes) -> None:
    def time_us(row: dict[str, Any]) -> int:
        owner = nusc.get("sample", row["sample_token"]) if "sample_token" in row else row
        return int(row.get("timestamp", owner["timestamp"]))

    linked = 0
    for row in getattr(nusc, table):
        if row["next"]:
            following = nusc.get(table, row["next"])
            assert following["prev"] == row["token"]
            assert 0.44e6 < time_us(following) - time_us(row) < 0.56e6
            linked += 1
    assert linked > 0


def test_instances_state_the_ends_and_length_of_their_chain(nusc: NuScenes) -> None:
    for instance in nusc.instance:
        row = nusc.get("sample_annotation", instance["first_annotation_token"])
        assert row["prev"] == ""
        length = 1
        while row["next"]:
            row = nusc.get("sample_annotation", row["next"])
            assert row["instance_token"] == instance["token"]
            length += 1
        assert row["token"] == instance["last_annotation_token"]
        assert length == instance["nbr_annotations"] >= 2


def test_every_class_is_scored_in_every_split(nusc: NuScenes) -> None:
    counts: dict[str, Counter[str]] = {"train": Counter(), "tune": Counter(), "val": Counter()}
    for row in nusc.sample_annotation:
        name = nusc.get("scene", nusc.get("sample", row["sample_token"])["scene_token"])["name"]
        split = "train" if name in train else "val" if name in val else "tune"
        if row["num_lidar_pts"] + row["num_radar_pts"] > 0:
            counts[split][category_to_detection_name(row["category_name"])] += 1
    for split, seen in counts.items():
        assert set(seen) == set(CLASS_NAMES), split


def test_attributes_fit_the_class_and_the_motion(nusc: NuScenes) -> None:
    seen = Counter[str]()
    for row in nusc.sample_annotation:
        name = category_to_detection_name(row["category_name"])
        allowed = detection_name_to_rel_attributes(name)
        given = [nusc.get("attribute", attribute)["name"] for attribute in row["attribute_tokens"]]
        assert len(given) == min(1, len(allowed))
        assert set(given) <= set(allowed)
        seen.update(given)
        speed = np.linalg.norm(nusc.box_velocity(row["token"])[:2])
        if speed < 0.05 and row["prev"] and row["next"]:
            assert not any(attribute.endswith(".moving") for attribute in given)
        if speed > 1.5:
            assert not {"vehicle.parked", "pedestrian.standing", "cycle.without_rider"} & set(given)
    assert {"vehicle.moving", "vehicle.parked", "vehicle.stopped", "pedestrian.moving", "cycle.with_rider"} <= set(seen)


def test_devkit_velocities_are_the_intended_ones(nusc: NuScenes, plans: dict[str, ScenePlan]) -> None:
    checked = 0
    for name, plan in plans.items():
        samples = {token(plan.seed, name, "sample", frame): frame for frame in range(len(plan.clock.lidar_us))}
        for number, thing in enumerate(plan.things):
            own = token(plan.seed, name, "instance", number)
            for row in nusc.sample_annotation:
                if row["instance_token"] != own:
                    continue
                frame = samples[row["sample_token"]]
                velocity = nusc.box_velocity(row["token"])[:2]
                assert np.isfinite(velocity).all()
                around = thing.speed_mps[max(0, frame - 1) : frame + 2]
                if np.ptp(around) > 1e-9:
                    continue
                assert np.linalg.norm(velocity) == pytest.approx(thing.speed_mps[frame], rel=0.03, abs=0.01)
                if thing.speed_mps[frame] > 0.5:
                    course = np.arctan2(velocity[1], velocity[0])
                    off = (thing.lidar_poses[frame, 2] - course + np.pi) % (2 * np.pi) - np.pi
                    assert abs(off) < 0.6, "things move the way they face"
                checked += 1
    assert checked > 200


def test_lidar_points_lie_in_the_boxes_that_count_them(nusc: NuScenes, tiny_world: Path) -> None:
    total = 0
    for sample in nusc.sample:
        path, boxes, _ = nusc.get_sample_data(sample["data"]["LIDAR_TOP"])
        assert Path(path).stat().st_size % 20 == 0
        cloud = LidarPointCloud.from_file(path)
        assert np.linalg.norm(cloud.points[:3], axis=0).max() <= 32.1
        for box in boxes:
            row = nusc.get("sample_annotation", box.token)
            assert int(points_in_box(box, cloud.points[:3]).sum()) == row["num_lidar_pts"]
            total += row["num_lidar_pts"]
    assert total > 10_000


def test_scored_boxes_are_within_reach_of_a_demo_detector(nusc: NuScenes) -> None:
    scored = 0
    for sample in nusc.sample:
        for box in nusc.get_sample_data(sample["data"]["LIDAR_TOP"])[1]:
            row = nusc.get("sample_annotation", box.token)
            if row["num_lidar_pts"] + row["num_radar_pts"] > 0:
                assert np.abs(box.center[:2]).max() < 32
                scored += 1
    assert 12 < scored / len(nusc.sample) < 40


def test_can_bus_messages_frame_the_scene_and_agree_with_the_poses(nusc: NuScenes, tiny_world: Path) -> None:
    can = NuScenesCanBus(str(tiny_world))
    for scene in nusc.scene:
        messages = can.get_messages(scene["name"], "pose")
        assert all(list(row) == ["accel", "orientation", "pos", "rotation_rate", "utime", "vel"] for row in messages)
        times = [row["utime"] for row in messages]
        first, last = (nusc.get("sample", scene[f"{end}_sample_token"]) for end in ("first", "last"))
        assert times == sorted(times)
        assert times[0] < first["timestamp"]
        assert times[-1] > last["timestamp"]
        nearest = min(messages, key=lambda row: abs(row["utime"] - last["timestamp"]))
        pose = nusc.get("ego_pose", nusc.get("sample_data", last["data"]["LIDAR_TOP"])["ego_pose_token"])
        gap_m = np.linalg.norm(np.subtract(nearest["pos"], pose["translation"]))
        assert gap_m <= 0.026 * np.linalg.norm(nearest["vel"]) + 0.01
        assert abs(np.dot(nearest["orientation"], pose["rotation"])) > 0.999
