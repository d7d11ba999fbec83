"""Rigid transforms against pyquaternion, box edges against brute force, and the published calibration."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyquaternion import Quaternion

from scenes.geometry import box_edges_in_image, heading_rad, pose_matrix, project_points, rotation_matrix, wrap_rad
from schemas.boxes import Boxes, box_corners_m
from schemas.frames import CAN_BUS_LENGTH, Frame

GOLDEN = json.loads((Path(__file__).parent / "golden" / "bevformer_temporal.json").read_text())
IMAGE_FROM_LIDAR = np.array([[100.0, 50, 0, 3], [0, 40, -100, 2], [0, 1, 0, 0], [0, 0, 0, 1]])
"""A camera at the LiDAR that looks along y, with focal length 100 and centre (50, 40)."""

components = st.floats(-1, 1, allow_nan=False)
quaternions = st.tuples(components, components, components, components).filter(lambda q: np.linalg.norm(q) > 1e-3)


def one_box(center_m: tuple[float, float, float], yaw_rad: float = 0.0) -> Boxes:
    return Boxes(
        center_m=np.array([center_m]),
        size_wlh_m=np.array([[2.0, 4.0, 1.5]]),
        yaw_rad=np.array([yaw_rad]),
        velocity_mps=np.zeros((1, 2)),
        has_velocity=np.ones(1, dtype=np.bool_),
        labels=np.zeros(1, dtype=np.int64),
    )


@given(quaternions)
def test_rotations_equal_pyquaternion(wxyz: tuple[float, float, float, float]) -> None:
    np.testing.assert_allclose(rotation_matrix(np.array(wxyz)), Quaternion(wxyz).rotation_matrix, atol=1e-12)
    np.testing.assert_allclose(rotation_matrix(-np.array(wxyz)), rotation_matrix(np.array(wxyz)), atol=0)


@given(quaternions, st.tuples(*[st.floats(-2000, 2000)] * 3))
def test_a_pose_moves_points_like_rotate_then_translate(
    wxyz: tuple[float, float, float, float], translation: tuple[float, float, float]
) -> None:
    point = np.array([1.0, -2.0, 3.0])
    moved = pose_matrix(np.array(translation), np.array(wxyz)) @ np.append(point, 1.0)
    np.testing.assert_allclose(moved[:3], Quaternion(wxyz).unit.rotate(point) + translation, atol=1e-9)
    assert moved[3] == 1.0


def test_poses_are_batched() -> None:
    rng = np.random.default_rng(0)
    translations, rotations = rng.normal(size=(3, 5, 3)), rng.normal(size=(3, 5, 4))
    poses = pose_matrix(translations, rotations)
    assert poses.shape == (3, 5, 4, 4)
    np.testing.assert_array_equal(poses[2, 4], pose_matrix(translations[2, 4], rotations[2, 4]))


@given(st.floats(-50, 50))
def test_wrapped_angles_lie_in_their_interval_and_mean_the_same(angle_rad: float) -> None:
    (wrapped,) = wrap_rad(np.array([angle_rad]))
    assert -np.pi <= wrapped < np.pi + 1e-12
    np.testing.assert_allclose(np.exp(1j * wrapped), np.exp(1j * angle_rad), atol=1e-9)


def test_pi_wraps_to_minus_pi() -> None:
    assert wrap_rad(np.array([np.pi, -np.pi])).tolist() == [-np.pi, -np.pi]


@given(st.floats(-3.1, 3.1))
def test_heading_is_the_angle_of_the_x_axis(angle_rad: float) -> None:
    rotation = Quaternion(axis=[0, 0, 1], radians=angle_rad).rotation_matrix
    np.testing.assert_allclose(heading_rad(rotation[None]), angle_rad, atol=1e-12)


def frame_with(lidar_from_camera: NDArray[np.float64], intrinsics: NDArray[np.float64]) -> Frame:
    return Frame(
        scene_name="scene-0001",
        scene_token="s",
        sample_token="t",
        step=0,
        timestamp_us=1,
        camera_paths=("a.jpg",) * 6,
        camera_size_wh=np.full((6, 2), 10),
        intrinsics=intrinsics,
        lidar_from_camera=lidar_from_camera,
        global_from_lidar=np.eye(4),
        global_from_ego=np.eye(4),
        can_bus=np.zeros(CAN_BUS_LENGTH),
        has_can_bus=False,
        boxes=None,
        lidar_path="a.bin",
    )


def test_the_published_calibration_is_reproduced() -> None:
    cameras = GOLDEN["example_sensor2lidar"].values()
    lidar_from_camera = np.tile(np.eye(4), (len(cameras), 1, 1))
    lidar_from_camera[:, :3, :3] = [camera["rotation"] for camera in cameras]
    lidar_from_camera[:, :3, 3] = [camera["translation"] for camera in cameras]
    frame = frame_with(lidar_from_camera, np.array([camera["intrinsic"] for camera in cameras]))
    np.testing.assert_allclose(frame.image_from_lidar, GOLDEN["example_lidar2img"], rtol=0, atol=1e-9)


def test_projected_points_are_pixels_and_depth() -> None:
    points_m = np.array([[0.0, 10, 0], [1, 10, 0], [0, 10, 1]])
    expected = [[50 + 0.3, 40 + 0.2, 10], [60.3, 40.2, 10], [50.3, 30.2, 10]]
    np.testing.assert_allclose(project_points(points_m, IMAGE_FROM_LIDAR), expected)


def test_a_box_in_front_gives_its_twelve_edges() -> None:
    boxes = one_box((0.0, 12.0, 0.0), yaw_rad=0.4)
    edges, owner = box_edges_in_image(boxes, IMAGE_FROM_LIDAR)
    assert edges.shape == (12, 2, 2)
    assert owner.tolist() == [0] * 12
    corners = project_points(box_corners_m(boxes)[0], IMAGE_FROM_LIDAR)[:, :2]
    found = {tuple(end) for end in edges.reshape(-1, 2).round(6)}
    assert found == {tuple(corner) for corner in corners.round(6)}


def test_a_box_behind_the_camera_gives_no_edges() -> None:
    edges, owner = box_edges_in_image(one_box((0.0, -12.0, 0.0)), IMAGE_FROM_LIDAR)
    assert edges.shape == (0, 2, 2)
    assert owner.shape == (0,)


@given(st.floats(-4, 4), st.floats(-3, 3), st.floats(-3, 3))
def test_a_box_across_the_near_plane_is_cut_there(x_m: float, y_m: float, yaw_rad: float) -> None:
    boxes = one_box((x_m, y_m, 0.3), yaw_rad)
    near_m = 0.5
    edges, _ = box_edges_in_image(boxes, IMAGE_FROM_LIDAR, near_m)
    assert np.isfinite(edges).all()
    depth_m = box_corners_m(boxes)[0, :, 1]
    front = np.array([[0, 1], [1, 2], [2, 3], [3, 0], [4, 5], [5, 6], [6, 7], [7, 4], [0, 4], [1, 5], [2, 6], [3, 7]])
    assert len(edges) == (depth_m[front] > near_m).any(axis=1).sum()
    # no end can be farther from the centre column than the widest corner at the near plane
    widest = (np.abs(box_corners_m(boxes)[0, :, 0]).max() * 100 + 3) / near_m
    assert np.abs(edges[..., 0] - 50).max(initial=0) <= widest + 1e-6


@pytest.mark.parametrize("near_m", [0.1, 1.0])
def test_cut_ends_lie_on_the_line_of_the_edge(near_m: float) -> None:
    boxes = one_box((0.5, 1.0, 0.0), yaw_rad=-np.pi / 2 - np.pi / 2)  # along y, from -1 to 3
    edges, _ = box_edges_in_image(boxes, IMAGE_FROM_LIDAR, near_m)
    x_m, z_m = np.array([-0.5, 1.5]), np.array([-0.75, 0.75])
    expected = {
        (round(50 + (100 * x + 3) / near_m, 6), round(40 + (2 - 100 * z) / near_m, 6)) for x in x_m for z in z_m
    }
    assert {tuple(end) for end in edges.reshape(-1, 2).round(6)} >= expected
