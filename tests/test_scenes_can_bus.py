"""The 18 numbers of ego motion: the published values, the next-message quirk, and scenes without messages."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_nuscenes import START_US, STEP_US, make_nuscenes

from scenes.can_bus import can_bus_vector, read_scene_motion
from scenes.tables import load_tables
from schemas.errors import DataError

GOLDEN = json.loads((Path(__file__).parent / "golden" / "bevformer_temporal.json").read_text())
VERSION, SCENE = "v1.0-trainval", "scene-0003"


def message(utime: int, value: float) -> dict[str, Any]:
    return {"utime": utime, "accel": [value] * 3, "rotation_rate": [value + 10] * 3, "vel": [value + 20] * 3}


def written(data_root: Path, content: object) -> Path:
    (data_root / "can_bus").mkdir()
    text = content if isinstance(content, str) else json.dumps(content)
    (data_root / "can_bus" / f"{SCENE}_pose.json").write_text(text)
    return data_root


def test_the_published_vectors_are_reproduced() -> None:
    vectors = can_bus_vector(
        np.array(GOLDEN["ego2global_translation"]),
        np.array(GOLDEN["ego2global_rotation_wxyz"]),
        np.array(GOLDEN["raw_can_bus"])[:, 7:16],
    )
    expected = np.array([entry["can_bus"] for entry in GOLDEN["inference"]])
    np.testing.assert_allclose(vectors[:, 3:17], expected[:, 3:17], rtol=0, atol=1e-12)
    # the golden vectors are differences within a scene, and zero at its first frame
    is_first = np.array([not entry["has_prev"] for entry in GOLDEN["inference"]])
    for slot in (0, 1, 2, 17):
        change = np.where(is_first, 0.0, np.diff(vectors[:, slot], prepend=0.0))
        np.testing.assert_allclose(change, expected[:, slot], rtol=0, atol=1e-9)


def test_yaw_is_in_both_units_and_never_negative() -> None:
    degrees = np.array([0.0, 30.0, 179.0, 181.0, 359.0])
    half = np.deg2rad(degrees) / 2
    rotations = np.stack([np.cos(half), 0 * half, 0 * half, np.sin(half)], axis=1)
    vectors = can_bus_vector(np.zeros((5, 3)), rotations, np.zeros((5, 9)))
    np.testing.assert_allclose(vectors[:, 17], degrees, atol=1e-9)
    np.testing.assert_allclose(vectors[:, 16], np.deg2rad(degrees), atol=1e-12)
    np.testing.assert_array_equal(vectors[:, 3:7], np.repeat(rotations[:, :1], 4, axis=1))


def test_values_come_from_the_first_message_after_the_sample(tmp_path: Path) -> None:
    root = written(tmp_path, [message(100, 1.0), message(200, 2.0), message(300, 3.0)])
    motion = read_scene_motion(root, SCENE, np.array([50, 100, 199, 200, 299, 300, 400]))
    assert motion is not None
    assert motion[:, 0].tolist() == [1, 2, 2, 3, 3, 3, 3]
    assert motion[0].tolist() == [1, 1, 1, 11, 11, 11, 21, 21, 21]


def test_frames_carry_the_messages_of_their_time(tmp_path: Path) -> None:
    made = make_nuscenes((SCENE,))
    frames = load_tables(made.write(tmp_path, images=False), VERSION).frames(SCENE)
    for frame in frames:
        later = next(m for m in made.can_bus[SCENE] if m["utime"] > frame.timestamp_us)
        assert frame.can_bus[7:16].tolist() == [*later["accel"], *later["rotation_rate"], *later["vel"]]
        assert frame.has_can_bus
        np.testing.assert_array_equal(frame.can_bus[:3], frame.global_from_ego[:3, 3])
    assert frames[1].timestamp_us == START_US + STEP_US


@pytest.mark.parametrize("reason", ["no folder", "no file", "no message", "blacklisted"])
def test_scenes_without_messages_are_zero_and_flagged(tmp_path: Path, reason: str) -> None:
    name = "scene-0161" if reason == "blacklisted" else SCENE
    made = make_nuscenes((name, "scene-0012"))
    if reason == "no folder":
        made.can_bus = {}
    elif reason == "no file":
        del made.can_bus[name]
    elif reason == "no message":
        made.can_bus[name] = []
    tables = load_tables(made.write(tmp_path, images=False), VERSION)
    for frame in tables.frames(name):
        assert not frame.has_can_bus
        assert not frame.can_bus[7:16].any()
        np.testing.assert_array_equal(frame.can_bus[:3], frame.global_from_ego[:3, 3])
        assert frame.can_bus[17] > 0
    assert tables.frames("scene-0012")[0].has_can_bus == (reason != "no folder")


@pytest.mark.parametrize(
    "content",
    [
        "[{",
        "{}",
        [{"utime": 1}],
        [message(1, float("nan"))],
        [message(1, 1.0) | {"vel": [1.0, 2.0]}],
        [message(1, 1.0) | {"accel": ["a", "b", "c"]}],
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: object) -> None:
    root = written(tmp_path, content)
    with pytest.raises(DataError, match=r"scene-0003_pose.json: expected a list of messages .*CAN bus expansion"):
        read_scene_motion(root, SCENE, np.array([5]))
