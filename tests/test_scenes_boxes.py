"""Boxes between the global and the LiDAR frame, against nuscenes-devkit and back again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_nuscenes import make_nuscenes
from nuscenes.nuscenes import NuScenes
from pyquaternion import Quaternion

from scenes.box_frames import GlobalBoxes, to_global, to_lidar
from scenes.geometry import pose_matrix
from scenes.tables import load_tables
from schemas.boxes import CLASS_NAMES

VERSION, SCENE = "v1.0-trainval", "scene-0003"


@pytest.fixture(scope="module")
def made_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three frames 0.5 s apart, then one that is 1.4 s late, then one 1.6 s later still."""
    made = make_nuscenes((SCENE,), frames=5)
    for step, delay_us in ((3, 900_000), (4, 2_000_000)):
        for row in [*made.tables["sample"], *made.tables["sample_data"], *made.tables["ego_pose"]]:
            if row["token"].startswith(f"{SCENE} sample {step}"):
                row["timestamp"] += delay_us
    # one object that is seen once only
    row = made.row("sample_annotation", token=f"{SCENE} object 0 at 1")
    row |= {"prev": "", "next": ""}
    made.row("sample_annotation", token=f"{SCENE} object 0 at 0")["next"] = ""
    made.row("sample_annotation", token=f"{SCENE} object 0 at 2")["prev"] = ""
    return made.write(tmp_path_factory.mktemp("made"), images=False)


@pytest.fixture(scope="module")
def devkit(made_root: Path) -> Any:
    return NuScenes(version=VERSION, dataroot=str(made_root), verbose=False)


def published_boxes(devkit: Any, sample: dict[str, Any]) -> list[tuple[int, Any, Any]]:
    """(label, box in the LiDAR frame, velocity there) as the published converter computes them, sorted by token."""
    lidar = devkit.get("sample_data", sample["data"]["LIDAR_TOP"])
    to_ego = Quaternion(devkit.get("ego_pose", lidar["ego_pose_token"])["rotation"]).inverse
    to_sensor = Quaternion(devkit.get("calibrated_sensor", lidar["calibrated_sensor_token"])["rotation"]).inverse
    _, boxes, _ = devkit.get_sample_data(lidar["token"])
    labels = {
        "construction": "construction_vehicle",
        "rigid": "bus",
        "adult": "pedestrian",
        "trafficcone": "traffic_cone",
    }
    rows = []
    for box in sorted(boxes, key=lambda box: box.token):
        name = box.name.split(".")[-1]
        if name != "pushable_pullable":
            velocity = to_sensor.rotate(to_ego.rotate(np.array([*devkit.box_velocity(box.token)[:2], 0.0])))
            rows.append((CLASS_NAMES.index(labels.get(name, name)), box, velocity))
    return rows


@pytest.mark.parametrize("step", range(5))
def test_annotations_equal_the_published_conversion(made_root: Path, devkit: Any, step: int) -> None:
    frame = load_tables(made_root, VERSION).frames(SCENE)[step]
    boxes = frame.boxes
    assert boxes is not None
    expected = published_boxes(devkit, devkit.get("sample", frame.sample_token))
    assert boxes.labels.tolist() == [label for label, _, _ in expected]
    np.testing.assert_allclose(boxes.center_m, [box.center for _, box, _ in expected], atol=1e-9)
    np.testing.assert_allclose(boxes.size_wlh_m, [box.wlh for _, box, _ in expected])
    yaw_rad = -np.array([box.orientation.yaw_pitch_roll[0] for _, box, _ in expected]) - np.pi / 2
    np.testing.assert_allclose(np.exp(1j * boxes.yaw_rad), np.exp(1j * yaw_rad), atol=1e-12)
    velocity_mps = np.array([velocity[:2] for _, _, velocity in expected])
    np.testing.assert_array_equal(boxes.has_velocity, np.isfinite(velocity_mps).all(axis=1))
    np.testing.assert_allclose(boxes.velocity_mps, np.nan_to_num(velocity_mps), atol=1e-9)


def test_velocities_are_unknown_alone_and_across_gaps(made_root: Path) -> None:
    frames = load_tables(made_root, VERSION).frames(SCENE)
    truck, car = CLASS_NAMES.index("truck"), CLASS_NAMES.index("car")
    known = {
        label: [bool(frame.boxes.has_velocity[frame.boxes.labels == label][0]) for frame in frames if frame.boxes]
        for label in (truck, car)
    }
    # centred over 1.0, 1.9 and 3.0 s; one-sided over 0.5 s and, at the end, 1.6 s
    assert known[truck] == [True, True, True, True, False]
    assert known[car] == [False, False, True, True, False]


angles = st.floats(-np.pi, np.pi)
tilts = st.floats(-0.2, 0.2)


@given(angles, st.tuples(angles, tilts, tilts), st.tuples(st.floats(-20, 20), st.floats(-20, 20)))
def test_to_global_is_the_exact_inverse_for_upright_boxes(
    yaw_rad: float, lean: tuple[float, float, float], velocity: tuple[float, float]
) -> None:
    turn, pitch, roll = lean
    car = Quaternion(axis=[0, 0, 1], radians=turn) * Quaternion(axis=[0, 1, 0], radians=pitch)
    car *= Quaternion(axis=[1, 0, 0], radians=roll)
    global_from_lidar = pose_matrix(np.array([600.0, 1600, 2]), car.elements)
    boxes = GlobalBoxes(
        translation_m=np.array([[610.0, 1590, 1]]),
        size_wlh_m=np.array([[2.0, 4, 1.5]]),
        rotation_wxyz=Quaternion(axis=[0, 0, 1], radians=yaw_rad).elements[None],
        velocity_mps=np.array([velocity]),
        labels=np.array([3]),
    )
    back = to_global(to_lidar(boxes, np.linalg.inv(global_from_lidar)), global_from_lidar)
    np.testing.assert_allclose(back.translation_m, boxes.translation_m, atol=1e-9)
    np.testing.assert_allclose(back.velocity_mps, boxes.velocity_mps, atol=1e-9)
    turned = Quaternion(back.rotation_wxyz[0]) * Quaternion(boxes.rotation_wxyz[0]).inverse
    assert abs(np.sin(turned.radians / 2)) < 1e-9


@given(angles, st.tuples(angles, st.floats(-0.02, 0.02), st.floats(-0.02, 0.02)))
def test_to_global_is_close_to_the_published_exporter(yaw_rad: float, lean: tuple[float, float, float]) -> None:
    turn, pitch, roll = lean
    car = Quaternion(axis=[0, 0, 1], radians=turn) * Quaternion(axis=[0, 1, 0], radians=pitch)
    car *= Quaternion(axis=[1, 0, 0], radians=roll)
    boxes = to_lidar(
        GlobalBoxes(
            translation_m=np.zeros((1, 3)),
            size_wlh_m=np.ones((1, 3)),
            rotation_wxyz=Quaternion(axis=[0, 0, 1], radians=yaw_rad).elements[None],
            velocity_mps=np.array([[1.0, 2.0]]),
            labels=np.array([0]),
        ),
        pose_matrix(np.zeros(3), car.inverse.elements),
    )
    ours = Quaternion(to_global(boxes, pose_matrix(np.zeros(3), car.elements)).rotation_wxyz[0])
    published = car * Quaternion(axis=[0, 0, 1], radians=float(-boxes.yaw_rad[0] - np.pi / 2))
    axis, published_axis = ours.rotate([1.0, 0, 0]), published.rotate([1.0, 0, 0])
    difference = np.arctan2(axis[1], axis[0]) - np.arctan2(published_axis[1], published_axis[0])
    assert abs(np.sin(difference)) <= 0.5 * (pitch**2 + roll**2) + 1e-6


def test_unknown_velocities_stay_unknown() -> None:
    boxes = GlobalBoxes(
        translation_m=np.zeros((2, 3)),
        size_wlh_m=np.ones((2, 3)),
        rotation_wxyz=np.array([[1.0, 0, 0, 0]] * 2),
        velocity_mps=np.array([[np.nan, np.nan], [1.0, 0.0]]),
        labels=np.zeros(2, dtype=np.int64),
    )
    in_lidar = to_lidar(boxes, np.eye(4))
    assert in_lidar.has_velocity.tolist() == [False, True]
    assert in_lidar.velocity_mps.tolist() == [[0.0, 0.0], [1.0, 0.0]]
    np.testing.assert_array_equal(to_global(in_lidar, np.eye(4)).velocity_mps, boxes.velocity_mps)
