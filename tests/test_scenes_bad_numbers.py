"""Numbers, times and paths in tables that cannot be: each is refused with one clear message."""

from collections.abc import Callable
from pathlib import Path

import pytest
from made_nuscenes import STEP_US, MadeNuscenes, make_nuscenes

from scenes.index_building import MAX_CAMERA_OFFSET_US
from scenes.tables import load_tables
from schemas.errors import DataError

VERSION, SCENE = "v1.0-trainval", "scene-0003"
SAMPLE, ANNOTATION = f"{SCENE} sample 1", f"{SCENE} object 4 at 1"


def refusal(data_root: Path) -> str:
    """The message with which a data directory is refused."""
    with pytest.raises(DataError) as caught:
        load_tables(data_root, VERSION)
    return str(caught.value)


def damaged(tmp_path: Path, damage: Callable[[MadeNuscenes], object]) -> str:
    made = make_nuscenes((SCENE, "scene-0012"))
    damage(made)
    return refusal(made.write(tmp_path, images=False))


@pytest.mark.parametrize("direction", [-1, 1])
def test_an_image_far_from_its_sample_is_refused(tmp_path: Path, direction: int) -> None:
    made = make_nuscenes()
    row = made.row("sample_data", token=f"{SAMPLE} CAM_BACK")
    sample_us = made.row("sample", token=SAMPLE)["timestamp"]
    row["timestamp"] = sample_us + direction * MAX_CAMERA_OFFSET_US
    load_tables(made.write(tmp_path, images=False), VERSION)
    row["timestamp"] += direction
    message = refusal(made.write(tmp_path, images=False))
    assert f"row '{SAMPLE} CAM_BACK': timestamps are out of order: CAM_BACK was taken at {row['timestamp']}" in message
    assert MAX_CAMERA_OFFSET_US == STEP_US // 2


NUMBERS: list[tuple[str, str, str, object, str]] = [
    ("calibrated_sensor", "calibration CAM_BACK", "translation", [0.0, float("nan"), 1.0], "finite numbers of shape"),
    ("calibrated_sensor", "calibration CAM_BACK", "translation", [0.0, 1.0], "finite numbers of shape (3,)"),
    ("calibrated_sensor", "calibration LIDAR_TOP", "translation", ["0", "1", "2"], "finite numbers of shape (3,)"),
    ("calibrated_sensor", "calibration LIDAR_TOP", "rotation", [float("nan")] * 4, "finite numbers of shape (4,)"),
    ("calibrated_sensor", "calibration LIDAR_TOP", "rotation", [0.0] * 4, "must be a unit quaternion, got [0.0"),
    ("calibrated_sensor", "calibration CAM_BACK", "rotation", [1.0, 0.1, 0, 0], "of length 1.00499"),
    ("calibrated_sensor", "calibration CAM_BACK", "camera_intrinsic", [], "finite numbers of shape (3, 3), got []"),
    (
        *("calibrated_sensor", "calibration CAM_BACK", "camera_intrinsic"),
        *([[9.0, 0, 5], [0, float("nan"), 5], [0, 0, 1]], "finite numbers of shape (3, 3)"),
    ),
    (
        *("calibrated_sensor", "calibration CAM_BACK", "camera_intrinsic"),
        *([[9.0, 0, 5], [0, 9, 5], [0, 0, 2]], "must be [[fx, s, cx], [0, fy, cy], [0, 0, 1]]"),
    ),
    (
        *("calibrated_sensor", "calibration CAM_BACK", "camera_intrinsic"),
        *([[0.0, 0, 5], [0, 9, 5], [0, 0, 1]], "must be [[fx, s, cx], [0, fy, cy], [0, 0, 1]]"),
    ),
    ("ego_pose", f"{SAMPLE} CAM_BACK", "translation", [1.0, 2.0, float("inf")], "finite numbers of shape (3,)"),
    ("ego_pose", f"{SAMPLE} LIDAR_TOP", "rotation", [0.5, 0.5, 0.5, 0.6], "must be a unit quaternion"),
    ("ego_pose", f"{SAMPLE} LIDAR_TOP", "rotation", None, "finite numbers of shape (4,), got None"),
    ("sample_data", f"{SAMPLE} CAM_BACK", "width", 0, "width must be an integer of at least 1, got 0"),
    ("sample_data", f"{SAMPLE} CAM_BACK", "height", "900", "height must be an integer of at least 1, got '900'"),
    ("sample_data", f"{SAMPLE} CAM_BACK", "timestamp", 1.5e15, "timestamp must be an integer of at least 1"),
    ("sample_annotation", ANNOTATION, "translation", [float("nan"), 0.0, 0.0], "finite numbers of shape (3,)"),
    ("sample_annotation", ANNOTATION, "size", [1.0, 0.0, 2.0], "size must be positive, got [1.0, 0.0, 2.0]"),
    ("sample_annotation", ANNOTATION, "size", [1.0, [2.0], 2.0], "finite numbers of shape (3,)"),
    ("sample_annotation", ANNOTATION, "rotation", [0.0, 0.0, 0.0, 0.0], "must be a unit quaternion"),
    ("sample_annotation", ANNOTATION, "num_lidar_pts", -1, "must be an integer of at least 0, got -1"),
    ("sample_annotation", ANNOTATION, "num_radar_pts", True, "must be an integer of at least 0, got True"),
]


@pytest.mark.parametrize(("table", "token", "field", "value", "expected"), NUMBERS)
def test_a_number_that_is_none_is_named(
    tmp_path: Path, table: str, token: str, field: str, value: object, expected: str
) -> None:
    message = damaged(tmp_path, lambda made: made.row(table, token=token).update({field: value}))
    assert message.startswith(f"{table}.json, row {token!r}: {field} must be ")
    assert expected in message
    assert message.endswith("Restore the table from the nuScenes download.")


def test_a_sample_timestamp_that_is_no_integer_is_refused(tmp_path: Path) -> None:
    message = damaged(tmp_path, lambda made: made.row("sample", token=SAMPLE).update(timestamp="soon"))
    assert message.startswith("sample.json, row")
    assert "timestamp must be an integer of at least 1, got 'soon'" in message


def test_two_attributes_are_refused(tmp_path: Path) -> None:
    two = ["attribute vehicle.moving", "attribute vehicle.parked"]
    message = damaged(
        tmp_path, lambda made: made.row("sample_annotation", token=ANNOTATION).update(attribute_tokens=two)
    )
    assert "an annotation has at most one attribute, got 2" in message


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside.jpg", "samples/../../outside.jpg"])
def test_paths_that_leave_the_data_root_are_refused(tmp_path: Path, path: str) -> None:
    message = damaged(
        tmp_path / "data", lambda made: made.row("sample_data", token=f"{SAMPLE} CAM_FRONT").update(filename=path)
    )
    where = f"sample_data.json, row '{SAMPLE} CAM_FRONT': the path {path!r} leaves the data directory {tmp_path}/data"
    assert message.startswith(where)


def test_a_scene_name_that_leaves_the_data_root_is_refused(tmp_path: Path) -> None:
    message = damaged(tmp_path, lambda made: made.tables["scene"][0].update(name="../../scene-0003"))
    assert "the path 'can_bus/../../scene-0003_pose.json' leaves the data directory" in message
