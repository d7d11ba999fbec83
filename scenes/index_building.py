"""From checked nuScenes tables to the flat arrays of ``scene_index``."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenes.annotation_arrays import annotation_arrays
from scenes.can_bus import MOTION_LENGTH, read_scene_motion
from scenes.confined_paths import confined_path
from scenes.scene_index import SENSORS, SceneIndex, text_array
from scenes.table_rows import Row, Tables, integer_rows, intrinsic_rows, number_rows, rotation_rows, row_error
from schemas.errors import DataError
from schemas.frames import CAMERAS

MAX_CAMERA_OFFSET_US = 250_000
"""Half of a keyframe interval: an image farther from its sample belongs to another one."""


@dataclass(frozen=True)
class Conventions:
    """What nuscenes-devkit knows beside the tables.

    Attributes:
        label_of_category: index into ``CLASS_NAMES``, for the categories that the detection task counts.
        splits: scene names by split, predefined ones first.
        custom_splits: which of them come from ``splits.json``.
        without_can_bus: scenes whose CAN bus recording is declared unusable.
    """

    label_of_category: Mapping[str, int]
    splits: Mapping[str, tuple[str, ...]]
    custom_splits: frozenset[str]
    without_can_bus: frozenset[str]


def build_index(data_root: Path, tables: Tables, conventions: Conventions) -> SceneIndex:
    """Flat arrays of a version.

    Args:
        data_root: the nuScenes directory; the CAN bus files are read from it.
        tables: rows that passed ``check_tables``.
        conventions: the devkit's knowledge.

    Raises:
        DataError: a number, a path, a key frame or a CAN bus file is not what nuScenes promises.
    """
    scenes = sorted(tables["scene"], key=lambda row: row["name"])
    by_scene: dict[str, list[Row]] = defaultdict(list)
    for row in tables["sample"]:
        by_scene[row["scene_token"]].append(row)
    grouped = [sorted(by_scene[scene["token"]], key=lambda row: row["timestamp"]) for scene in scenes]
    samples = [row for group in grouped for row in group]
    timestamp_us = integer_rows(samples, "sample", "timestamp", 1)
    scene_start = np.cumsum([0, *map(len, grouped)], dtype=np.int64)
    names = [scene["name"] for scene in scenes]
    _check_paths(data_root, "map", tables["map"])
    motion, has_can_bus = _motion(data_root, names, scene_start, timestamp_us, conventions.without_can_bus)
    return SceneIndex(
        scene_name=text_array(names),
        scene_token=text_array([scene["token"] for scene in scenes]),
        scene_start=scene_start,
        sample_token=text_array([row["token"] for row in samples]),
        timestamp_us=timestamp_us,
        can_bus_motion=motion,
        has_can_bus=has_can_bus,
        has_labels=np.array(len(tables["sample_annotation"]) > 0),
        split_name=text_array(list(conventions.splits)),
        split_has_scene=_split_members(names, conventions),
        **_sensor_arrays(data_root, tables, samples),
        **annotation_arrays(tables, samples, conventions.label_of_category),
    )


def _motion(
    data_root: Path,
    names: list[str],
    scene_start: NDArray[np.int64],
    timestamp_us: NDArray[np.int64],
    without_can_bus: frozenset[str],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    motion = np.zeros((len(timestamp_us), MOTION_LENGTH))
    has_can_bus = np.zeros(len(timestamp_us), dtype=np.bool_)
    for number, name in enumerate(names):
        rows = slice(*scene_start[number : number + 2].tolist())
        found = None if name in without_can_bus else read_scene_motion(data_root, name, timestamp_us[rows])
        if found is not None:
            motion[rows], has_can_bus[rows] = found, True
    return motion, has_can_bus


def _split_members(names: list[str], conventions: Conventions) -> NDArray[np.bool_]:
    for split in conventions.custom_splits:
        unknown = sorted(set(conventions.splits[split]) - set(names))
        if unknown:
            raise DataError(
                f"splits.json, split {split!r}: {len(unknown)} of its scenes are not in scene.json "
                f"({', '.join(unknown[:5])}). Correct the names or remove them."
            )
    members = [[name in chosen for name in names] for chosen in map(frozenset, conventions.splits.values())]
    return np.array(members, dtype=np.bool_).reshape(len(members), len(names))


def _sensor_arrays(data_root: Path, tables: Tables, samples: Sequence[Row]) -> dict[str, NDArray[Any]]:
    """Arrays of the seven sensors' key frames, in ``SENSORS`` order."""
    count = len(samples)
    key_frames = _key_frames(tables, samples)
    calibrations = _rows_named(tables["calibrated_sensor"], key_frames, "calibrated_sensor_token")
    poses = _rows_named(tables["ego_pose"], key_frames, "ego_pose_token")
    grid = np.arange(len(key_frames)).reshape(count, len(SENSORS))
    camera_rows = grid[:, : len(CAMERAS)].ravel().tolist()
    cameras = [key_frames[row] for row in camera_rows]
    _check_times(key_frames, samples)
    _check_paths(data_root, "sample_data", key_frames)
    sizes = [integer_rows(cameras, "sample_data", field, 1) for field in ("width", "height")]
    shape = grid.shape
    return {
        "sensor_path": text_array([row["filename"] for row in key_frames]).reshape(shape),
        "camera_size_wh": np.stack(sizes, axis=-1).reshape(count, len(CAMERAS), 2),
        "intrinsics": intrinsic_rows([calibrations[row] for row in camera_rows]).reshape(count, len(CAMERAS), 3, 3),
        "sensor_translation_m": number_rows(calibrations, "calibrated_sensor", "translation", (3,)).reshape(*shape, 3),
        "sensor_rotation_wxyz": rotation_rows(calibrations, "calibrated_sensor").reshape(*shape, 4),
        "ego_translation_m": number_rows(poses, "ego_pose", "translation", (3,)).reshape(*shape, 3),
        "ego_rotation_wxyz": rotation_rows(poses, "ego_pose").reshape(*shape, 4),
    }


def _check_paths(data_root: Path, table: str, rows: Iterable[Row]) -> None:
    for row in rows:
        try:
            confined_path(data_root, row["filename"])
        except DataError as error:
            raise DataError(f"{table}.json, row {row['token']!r}: {error}") from error


def _key_frames(tables: Tables, samples: Sequence[Row]) -> Sequence[Row]:
    """The sample_data rows of each sample's seven sensors, sample by sample in ``SENSORS`` order."""
    channel_of = {row["token"]: row["channel"] for row in tables["sensor"]}
    wanted = {
        row["token"]: channel_of[row["sensor_token"]]
        for row in tables["calibrated_sensor"]
        if channel_of[row["sensor_token"]] in SENSORS
    }
    found: dict[tuple[str, str], Row] = {}
    for row in tables["sample_data"]:
        channel = wanted.get(row["calibrated_sensor_token"])
        if not row["is_key_frame"] or channel is None:
            continue
        other = found.setdefault((row["sample_token"], channel), row)
        if other is not row:
            what = f"sample {row['sample_token']!r} has a second key frame of {channel}, {other['token']!r}"
            raise row_error("sample_data", row["token"], what)
    for sample in samples:
        missing = [channel for channel in SENSORS if (sample["token"], channel) not in found]
        if missing:
            raise row_error(
                "sample", sample["token"], f"it has no key frame of {', '.join(missing)} in sample_data.json"
            )
    return [found[sample["token"], channel] for sample in samples for channel in SENSORS]


def _rows_named(rows: Iterable[Row], by: Sequence[Row], field: str) -> Sequence[Row]:
    by_token = {row["token"]: row for row in rows}
    return [by_token[row[field]] for row in by]


def _check_times(key_frames: Sequence[Row], samples: Sequence[Row]) -> None:
    times_us = integer_rows(key_frames, "sample_data", "timestamp", 1).reshape(len(samples), len(SENSORS))
    for number, sample in enumerate(samples):
        for sensor, time_us in enumerate(times_us[number].tolist()):
            if abs(time_us - sample["timestamp"]) > MAX_CAMERA_OFFSET_US:
                row = key_frames[number * len(SENSORS) + sensor]
                what = (
                    f"timestamps are out of order: {SENSORS[sensor]} was taken at {time_us}, more than "
                    f"{MAX_CAMERA_OFFSET_US} µs from its sample {sample['token']!r} at {sample['timestamp']}"
                )
                raise row_error("sample_data", row["token"], what)
