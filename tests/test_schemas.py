"""What every stage agrees on: box corners, the grid, stored arrays, the frame index, the manifest's fingerprint."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.bev_grid import BevGrid
from schemas.boxes import CLASS_NAMES, Boxes, box_corners_m, empty_boxes
from schemas.features import FeatureSpec, frame_bytes
from schemas.frame_index import FRAME_SCHEMA, frame_table
from schemas.frames import Frame
from schemas.manifest import DatasetIdentity, Manifest, TeacherIdentity, differing_fields, weights_sha256
from schemas.preprocessing import Preprocessing

GRID = BevGrid(rows=4, cols=6, extent_m=(-6.0, -4.0, -5.0, 6.0, 4.0, 3.0))
RGB = Preprocessing(color_order="rgb", mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 1.0), scale=0.8)
BEV = FeatureSpec(
    name="bev",
    dims=("y", "x", "channel"),
    shape=(4, 6, 8),
    encoding="affine",
    scale_dims=("channel",),
    description="BEV",
)


def one_box(yaw_rad: float) -> Boxes:
    return Boxes(
        center_m=np.array([[1.0, 2.0, 3.0]]),
        size_wlh_m=np.array([[2.0, 4.0, 1.0]]),
        yaw_rad=np.array([yaw_rad]),
        velocity_mps=np.zeros((1, 2)),
        has_velocity=np.array([True]),
        labels=np.array([0]),
    )


def manifest(**changes: Any) -> Manifest:
    values = {
        "teacher": TeacherIdentity(name="t", architecture="{}", weights_sha256="0", untrained=False),
        "preprocessing": RGB,
        "precision": "float32",
        "dataset": DatasetIdentity(name="nuscenes", version="v1.0-mini", split="mini_train", tables_sha256="1"),
        "features": (BEV,),
        "tier": "int8",
        "class_names": CLASS_NAMES,
        "grid": GRID,
        "program_version": "1",
        "device": "cpu",
    }
    return Manifest.model_validate(values | changes)


def test_a_box_that_heads_along_x_has_its_length_there() -> None:
    front_left, front_right, rear_right, rear_left = box_corners_m(one_box(-np.pi / 2))[0, :4]
    np.testing.assert_allclose(front_left, [3.0, 3.0, 2.5])
    np.testing.assert_allclose(front_right, [3.0, 1.0, 2.5])
    np.testing.assert_allclose(rear_right, [-1.0, 1.0, 2.5])
    np.testing.assert_allclose(rear_left, [-1.0, 3.0, 2.5])


def test_a_box_of_yaw_zero_heads_backwards() -> None:
    corners = box_corners_m(one_box(0.0))[0]
    np.testing.assert_allclose(corners[:2, :2].mean(axis=0), [1.0, 0.0], atol=1e-12)


@given(st.floats(-np.pi, np.pi))
def test_corners_keep_centre_and_size(yaw_rad: float) -> None:
    corners = box_corners_m(one_box(yaw_rad))[0]
    np.testing.assert_allclose(corners.mean(axis=0), [1.0, 2.0, 3.0], atol=1e-9)
    width, length, height = (np.linalg.norm(corners[a] - corners[b]) for a, b in ((0, 1), (1, 2), (0, 4)))
    np.testing.assert_allclose([width, length, height], [2.0, 4.0, 1.0])


def test_selecting_boxes_keeps_their_rows_together() -> None:
    assert len(one_box(0.0).select(np.array([False]))) == 0
    assert one_box(0.0).select(np.array([0, 0])).center_m.shape == (2, 3)
    assert empty_boxes(scored=True).scores is not None
    assert empty_boxes().scores is None


def test_the_grid_knows_its_cells() -> None:
    assert GRID.cell_m == (2.0, 2.0)
    assert GRID.shape == (4, 6)
    with pytest.raises(ValidationError, match="min < max"):
        BevGrid(rows=4, cols=6, extent_m=(6.0, -4.0, -5.0, -6.0, 4.0, 3.0))


@pytest.mark.parametrize(("scale", "padded"), [(1.0, (928, 1600)), (0.8, (736, 1280)), (0.5, (480, 800))])
def test_the_published_image_sizes(scale: float, padded: tuple[int, int]) -> None:
    assert RGB.model_copy(update={"scale": scale}).padded_hw(900, 1600) == padded


@pytest.mark.parametrize(
    ("encoding", "tier", "stored"),
    [
        ("affine", "int8", {"f": "int8", "f_scale": "float32", "f_offset": "float32"}),
        ("affine", "float16", {"f": "float16"}),
        ("symmetric", "float16", {"f": "int8", "f_scale": "float32"}),
        ("unit", "int8", {"f": "uint8"}),
        ("float16", "int8", {"f": "float16"}),
        ("float32", "float16", {"f": "float32"}),
    ],
)
def test_what_a_feature_stores(encoding: Any, tier: Any, stored: dict[str, str]) -> None:
    scale_dims = ("b",) if encoding in ("affine", "symmetric") else ()
    spec = FeatureSpec(
        name="f", dims=("a", "b"), shape=(2, 3), encoding=encoding, scale_dims=scale_dims, description="a feature"
    )
    assert {array.name: array.dtype for array in spec.stored(tier)} == stored


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dims": ("y", "x")}, "do not name the sizes"),
        ({"dims": ("y", "y", "channel")}, "do not name the sizes"),
        ({"shape": (4, 0, 8)}, "at least 1"),
        ({"scale_dims": ()}, "does not go with"),
        ({"scale_dims": ("channel", "y")}, "does not go with"),
        ({"encoding": "float32"}, "does not go with"),
    ],
)
def test_a_feature_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FeatureSpec.model_validate(BEV.model_dump() | changes)


def test_the_price_of_a_frame() -> None:
    cells, channels = 4 * 6 * 8, 8
    assert frame_bytes([BEV], "int8") == (cells + 4) + 2 * (4 * channels + 4)
    assert frame_bytes([BEV, BEV], "float16") == 2 * (2 * cells + 4)


def frame(step: int, x_m: float) -> Frame:
    pose = np.eye(4)
    pose[0, 3] = x_m
    cameras = np.tile(np.eye(4), (6, 1, 1))
    return Frame(
        scene_name="scene-0001",
        scene_token="s",
        sample_token=f"sample{step}",
        step=step,
        timestamp_us=step * 500_000,
        camera_paths=("a.jpg",) * 6,
        camera_size_wh=np.full((6, 2), 10),
        intrinsics=cameras[:, :3, :3] * 2,
        lidar_from_camera=cameras,
        global_from_lidar=pose,
        global_from_ego=pose,
        can_bus=np.zeros(18),
        has_can_bus=True,
        boxes=None,
        lidar_path="a.bin",
    )


def test_the_frame_index_holds_the_motion_between_frames() -> None:
    table = frame_table([frame(0, 1.0), frame(1, 4.0)])
    assert table.schema == FRAME_SCHEMA
    assert table["has_previous"].to_pylist() == [False, True]
    assert table["has_labels"].to_pylist() == [False, False]
    first, second = np.array(table["previous_from_current"].to_pylist()).reshape(2, 4, 4)
    np.testing.assert_array_equal(first, np.eye(4))
    np.testing.assert_allclose(second[:, 3], [3.0, 0.0, 0.0, 1.0])


def test_the_motion_is_that_of_the_inverse_pose() -> None:
    stream = np.random.default_rng(0)
    poses = []
    for _ in range(2):
        rotation, _ = np.linalg.qr(stream.normal(size=(3, 3)))
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation * np.linalg.det(rotation), stream.normal(size=3) * 1000
        poses.append(pose)
    frames = [replace(frame(step, 0.0), global_from_lidar=pose) for step, pose in enumerate(poses)]
    second = np.array(frame_table(frames)["previous_from_current"][1].as_py()).reshape(4, 4)
    np.testing.assert_allclose(second, np.linalg.inv(poses[0]) @ poses[1], atol=1e-9)


def test_image_from_lidar_applies_intrinsics_after_the_camera_pose() -> None:
    shifted = frame(0, 0.0).lidar_from_camera.copy()
    shifted[:, 2, 3] = -5.0
    image_from_lidar = replace(frame(0, 0.0), lidar_from_camera=shifted).image_from_lidar
    np.testing.assert_allclose(image_from_lidar[0] @ [1.0, 0.0, 0.0, 1.0], [2.0, 0.0, 10.0, 1.0])


def test_the_fingerprint_covers_what_changes_a_number_and_nothing_else() -> None:
    assert manifest().fingerprint == manifest(program_version="2", device="cuda").fingerprint
    changed = [manifest(tier="float16"), manifest(precision="bfloat16"), manifest(numerics=2), manifest(features=())]
    assert len({made.fingerprint for made in [manifest(), *changed]}) == 5


def test_differing_fields_are_named_by_their_dotted_path() -> None:
    other = manifest(
        tier="float16",
        preprocessing=RGB.model_copy(update={"scale": 1.0}),
        features=(BEV.model_copy(update={"shape": (4, 6, 9)}),),
    )
    assert differing_fields(manifest().hashed_fields(), other.hashed_fields()) == [
        ("features.bev.shape", [4, 6, 8], [4, 6, 9]),
        ("preprocessing.scale", 0.8, 1.0),
        ("tier", "int8", "float16"),
    ]
    missing = differing_fields(manifest().hashed_fields(), manifest(features=()).hashed_fields())
    assert ("features.bev.name", "bev", "(absent)") in missing


def test_a_feature_is_found_by_name() -> None:
    assert manifest().feature("bev") == BEV
    with pytest.raises(KeyError):
        manifest().feature("bev_low")


def test_the_hash_of_weights_depends_on_names_shapes_types_and_bytes_not_on_order() -> None:
    a, b = np.zeros((2, 3), np.float32), np.ones(2, np.float32)
    base = weights_sha256([("a", a), ("b", b)])
    assert base == weights_sha256([("b", b), ("a", a)])
    others = [[("a", b), ("b", a)], [("a", a.T), ("b", b)], [("a", a.astype("f8")), ("b", b)], [("a", a + 1), ("b", b)]]
    assert base not in {weights_sha256(named) for named in others}
