"""Reading nuScenes versions: frames, splits, the saved index, and what workers must not import."""

import json
import logging
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_nuscenes import SIZE_WH, STEP_US, make_nuscenes
from pyquaternion import Quaternion

from scenes.tables import load_tables
from schemas.boxes import CLASS_NAMES
from schemas.errors import DataError
from schemas.frame_index import frame_table
from schemas.frames import CAMERAS

VERSION = "v1.0-trainval"
VAL, OTHER = "scene-0003", "scene-0012"


@pytest.fixture(scope="module")
def made_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nuscenes().write(tmp_path_factory.mktemp("made"))


def without_devkit(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, building an index is a failure."""

    def refuse(*_: object) -> None:
        raise AssertionError("the saved index was not used")

    monkeypatch.setattr("scenes.tables._build", refuse)


def test_frames_come_in_time_order_with_six_cameras_in_bevformer_order(made_root: Path) -> None:
    tables = load_tables(made_root, VERSION)
    assert tables.all_scene_names == (VAL, OTHER)
    frames = tables.frames(VAL)
    assert [frame.sample_token for frame in frames] == [f"{VAL} sample {step}" for step in range(3)]
    assert [frame.step for frame in frames] == [0, 1, 2]
    assert np.diff([frame.timestamp_us for frame in frames]).tolist() == [STEP_US, STEP_US]
    for frame in frames:
        assert [Path(path).parent.name for path in frame.camera_paths] == list(CAMERAS)
        assert Path(frame.lidar_path).parent.name == "LIDAR_TOP"
        assert frame.camera_size_wh.tolist() == [list(SIZE_WH)] * 6
        assert (frame.scene_name, frame.scene_token) == (VAL, f"{VAL} token")
        assert frame.boxes is not None
        assert sorted(frame.boxes.labels.tolist()) == list(range(len(CLASS_NAMES)))
    assert len(frame_table(frames)) == 3
    assert tables.scene_length(VAL) == 3
    assert tables.scene_token(VAL) == tables.frames(VAL)[0].scene_token
    assert tables.sample_tokens(VAL) == tuple(frame.sample_token for frame in frames)


def test_one_frame_by_token_equals_the_frame_of_its_scene(made_root: Path) -> None:
    tables = load_tables(made_root, VERSION)
    expected, got = tables.frames(OTHER)[2], tables.frame(f"{OTHER} sample 2")
    for name in expected.__dataclass_fields__:
        if name != "boxes":
            np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))


def test_camera_transforms_are_motion_compensated_through_the_global_frame(made_root: Path) -> None:
    frame = load_tables(made_root, VERSION).frames(VAL)[1]
    point_global = np.array([615.0, 1603.0, 1.0, 1.0])
    point_lidar = np.linalg.inv(frame.global_from_lidar) @ point_global
    rows = {
        table: {row["token"]: row for row in json.loads((made_root / VERSION / f"{table}.json").read_text())}
        for table in ("ego_pose", "calibrated_sensor")
    }
    for camera, lidar_from_camera in zip(CAMERAS, frame.lidar_from_camera, strict=True):
        expected = point_global[:3]
        for row in (rows["ego_pose"][f"{VAL} sample 1 {camera}"], rows["calibrated_sensor"][f"calibration {camera}"]):
            expected = Quaternion(row["rotation"]).inverse.rotate(expected - row["translation"])
        np.testing.assert_allclose((np.linalg.inv(lidar_from_camera) @ point_lidar)[:3], expected, atol=1e-9)


def test_boxes_without_points_and_of_other_classes_are_left_out(tmp_path: Path) -> None:
    made = make_nuscenes((VAL,))
    made.row("sample_annotation", token=f"{VAL} object 1 at 0")["num_lidar_pts"] = 0
    frames = load_tables(made.write(tmp_path), VERSION).frames(VAL)
    assert frames[0].boxes is not None
    assert frames[1].boxes is not None
    assert CLASS_NAMES.index("truck") not in frames[0].boxes.labels
    assert CLASS_NAMES.index("truck") in frames[1].boxes.labels
    assert len(frames[1].boxes) == 10


def test_a_test_version_has_no_boxes(tmp_path: Path) -> None:
    made = make_nuscenes(("scene-0077",), version="v1.0-test")
    made.tables["sample_annotation"], made.tables["instance"] = [], []
    tables = load_tables(made.write(tmp_path), "v1.0-test")
    assert not tables.has_labels
    assert all(frame.boxes is None for frame in tables.frames("scene-0077"))
    assert tables.scene_names("test") == ("scene-0077",)


def test_a_frame_without_annotations_in_a_labelled_version_has_zero_boxes(tmp_path: Path) -> None:
    made = make_nuscenes((VAL,), frames=1)
    made.tables["sample_annotation"] = made.tables["sample_annotation"][-1:]  # of no detection class
    boxes = load_tables(made.write(tmp_path), VERSION).frames(VAL)[0].boxes
    assert boxes is not None
    assert len(boxes) == 0


def test_unknown_scenes_and_samples_are_refused(made_root: Path) -> None:
    tables = load_tables(made_root, VERSION)
    with pytest.raises(DataError, match=r"scene 'scene-9999' is not among the 2 scenes .*scene-0003.*--scenes"):
        tables.frames("scene-9999")
    with pytest.raises(DataError, match=r"sample 'x' is not among the 6 samples of v1.0-trainval .*--version"):
        tables.frame("x")


def test_the_index_is_saved_and_used_without_the_devkit(
    made_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_tables(made_root, VERSION, tmp_path)
    without_devkit(monkeypatch)
    second = load_tables(made_root, VERSION, tmp_path)
    assert second.tables_sha256 == first.tables_sha256
    assert second.scene_names("val") == first.scene_names("val")
    np.testing.assert_array_equal(second.frames(VAL)[0].image_from_lidar, first.frames(VAL)[0].image_from_lidar)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other"])
def test_a_damaged_index_is_made_again(made_root: Path, tmp_path: Path, damage: str) -> None:
    expected = load_tables(made_root, VERSION, tmp_path).tables_sha256
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[:-100]
    elif damage == "flip":
        content[len(content) // 2] ^= 0xFF
    elif damage == "empty":
        content = bytearray()
    else:
        np.savez(path, key=np.zeros(1))
        content = bytearray(path.read_bytes())
    path.write_bytes(content)
    assert load_tables(made_root, VERSION, tmp_path).tables_sha256 == expected
    assert len(path.read_bytes()) > len(content) or damage == "flip"


@pytest.mark.parametrize("changed", ["table", "can_bus", "splits"])
def test_a_changed_source_makes_the_index_again(tmp_path: Path, changed: str) -> None:
    made = make_nuscenes((VAL,))
    root = made.write(tmp_path / "data")
    before = load_tables(root, VERSION, tmp_path / "index")
    if changed == "table":
        made.tables["calibrated_sensor"][0]["translation"][0] += 0.25
    elif changed == "can_bus":
        made.can_bus[VAL][10]["accel"][0] += 1.0
    else:
        made.splits = {"mine": [VAL]}
    made.write(root)
    after = load_tables(root, VERSION, tmp_path / "index")
    assert (after.split_sizes != before.split_sizes) == (changed == "splits")
    assert (after.tables_sha256 == before.tables_sha256) == (changed != "table")
    if changed == "can_bus":  # the message is between two samples, where nobody reads it
        made.can_bus[VAL][2]["accel"][0] += 1.0
        made.write(root)
        assert load_tables(root, VERSION, tmp_path / "index").tables_sha256 != before.tables_sha256


def test_a_source_of_the_same_size_but_another_time_makes_the_index_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_nuscenes((VAL,)).write(tmp_path / "data")
    load_tables(root, VERSION, tmp_path / "index")
    os.utime(root / VERSION / "sample.json", ns=(1, 1))
    without_devkit(monkeypatch)
    with pytest.raises(AssertionError, match="the saved index was not used"):
        load_tables(root, VERSION, tmp_path / "index")


def test_an_index_folder_that_cannot_be_written_is_told(made_root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write the table index .*Make its folder writable"):
        load_tables(made_root, VERSION, tmp_path / "file")


def test_the_hash_depends_on_content_not_on_row_order_or_place(tmp_path: Path) -> None:
    made = make_nuscenes((VAL, OTHER))
    expected = load_tables(made.write(tmp_path / "a"), VERSION).tables_sha256
    for rows in made.tables.values():
        random.Random(1).shuffle(rows)
    made.splits = {"mine": [VAL]}
    assert load_tables(made.write(tmp_path / "b"), VERSION).tables_sha256 == expected
    made.row("sample_annotation", token=f"{VAL} object 3 at 1")["size"][2] += 0.125
    assert load_tables(made.write(tmp_path / "b"), VERSION).tables_sha256 != expected


def test_workers_never_import_the_devkit(made_root: Path, tmp_path: Path) -> None:
    load_tables(made_root, VERSION, tmp_path)
    program = f"""
import sys
from pathlib import Path
from scenes.images import load_inputs
from scenes.tables import load_tables
from schemas.preprocessing import Preprocessing
root = Path({str(made_root)!r})
tables = load_tables(root, {VERSION!r}, Path({str(tmp_path)!r}))
preprocessing = Preprocessing(color_order="rgb", mean=(1, 2, 3), std=(1, 1, 1))
print(load_inputs(tables.frames({VAL!r})[0], root, preprocessing).images.shape)
heavy = {{"nuscenes", "matplotlib", "sklearn", "torch", "pyquaternion"}} & set(sys.modules)
assert not heavy, heavy
"""
    repository = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=repository)
    assert (done.returncode, done.stdout.strip()) == (0, "(6, 3, 32, 32)"), done.stderr


def test_tables_can_be_sent_to_another_process(made_root: Path) -> None:
    tables = load_tables(made_root, VERSION)
    copy = pickle.loads(pickle.dumps(tables))
    assert copy.tables_sha256 == tables.tables_sha256
    assert copy.frame(f"{VAL} sample 1").timestamp_us == tables.frame(f"{VAL} sample 1").timestamp_us


def test_an_ordinary_data_set_warns_of_nothing(made_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_tables(made_root, VERSION)
    assert caplog.records == []


def test_one_frame_and_no_can_bus_each_give_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = make_nuscenes((VAL, OTHER), frames=1)
    made.can_bus = {}
    root = made.write(tmp_path)
    with caplog.at_level(logging.WARNING, "bev"):
        frames = load_tables(root, VERSION).frames(VAL)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "2 of 2 scenes of one frame (scene-0003)",
        "2 of 2 scenes without CAN bus (scene-0003)",
    ]
    assert len(frames) == 1
    assert frames[0].boxes is not None
    assert not frames[0].has_can_bus
    assert not frames[0].boxes.has_velocity.any()
    assert not frames[0].boxes.velocity_mps.any()
