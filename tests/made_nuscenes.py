"""A hand-made nuScenes folder of a few tiny frames, small enough to damage in every way.

Unlike the synthetic world it draws nothing: images are noise. The car leans and turns, so that frames of reference
differ; every class occurs; attributes follow the rule of the published exporter, so the annotations are a perfect
submission.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pyquaternion import Quaternion

from schemas.frames import CAMERAS

SENSORS = (*CAMERAS, "LIDAR_TOP")
CAMERA_YAW_DEG = dict(zip(CAMERAS, (0.0, -55.0, 55.0, 180.0, 110.0, -110.0), strict=True))
OPTICAL = Quaternion(0.5, -0.5, 0.5, -0.5)
START_US = 1_532_402_900_000_000
STEP_US = 500_000
SIZE_WH = (32, 18)
OBJECTS: tuple[tuple[str, str, float], ...] = (
    ("vehicle.car", "vehicle.moving", 6.0),
    ("vehicle.truck", "vehicle.parked", 0.0),
    ("vehicle.construction", "vehicle.parked", 0.0),
    ("vehicle.bus.rigid", "vehicle.stopped", 0.0),
    ("vehicle.trailer", "vehicle.moving", 4.0),
    ("movable_object.barrier", "", 0.0),
    ("vehicle.motorcycle", "cycle.with_rider", 5.0),
    ("vehicle.bicycle", "cycle.without_rider", 0.0),
    ("human.pedestrian.adult", "pedestrian.moving", 1.2),
    ("movable_object.trafficcone", "", 0.0),
    ("movable_object.pushable_pullable", "", 0.0),
)
"""Category, attribute and speed in m/s of the objects in each scene; the last is of no detection class."""


@dataclass
class MadeNuscenes:
    """Tables to be changed at will, then written.

    Attributes:
        tables: rows by table name.
        can_bus: messages by scene name; remove entries for scenes without.
        splits: content of ``splits.json``; not written when empty.
        texts: raw file contents by path in the data root, written last: a way to damage a file.
        absent: paths that are not written at all.
    """

    version: str
    tables: dict[str, list[dict[str, Any]]]
    can_bus: dict[str, list[dict[str, Any]]]
    splits: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)

    def row(self, table: str, **fields: Any) -> dict[str, Any]:
        """The first row whose fields have these values."""
        return next(row for row in self.tables[table] if all(row[key] == value for key, value in fields.items()))

    def write(self, data_root: Path, *, images: bool = True) -> Path:
        """Write everything, the camera images only when asked for; returns ``data_root``."""
        files: dict[str, str] = {f"{self.version}/{name}.json": json.dumps(rows) for name, rows in self.tables.items()}
        files |= {f"can_bus/{scene}_pose.json": json.dumps(messages) for scene, messages in self.can_bus.items()}
        if self.splits:
            files[f"{self.version}/splits.json"] = json.dumps(self.splits)
        for relative, text in (files | self.texts).items():
            if relative not in self.absent:
                path = data_root / relative
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        names = ["maps/map.png"]
        if images:
            names += [row["filename"] for row in self.tables["sample_data"] if row["filename"].endswith(".jpg")]
        self._write_images(data_root, [name for name in names if name not in self.absent])
        return data_root

    def _write_images(self, data_root: Path, names: list[str]) -> None:
        rng = np.random.default_rng(0)
        for name in names:
            path = data_root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 255, (SIZE_WH[1], SIZE_WH[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)


def make_nuscenes(
    scene_names: tuple[str, ...] = ("scene-0003", "scene-0012"), frames: int = 3, version: str = "v1.0-trainval"
) -> MadeNuscenes:
    """Tables of a whole little data set; ``scene-0003`` is of the official ``val``, ``scene-0001`` of ``train``."""
    tables = _constant_tables()
    made = MadeNuscenes(version, tables, can_bus={})
    for number, name in enumerate(scene_names):
        _add_scene(made, number, name, frames)
    return made


def _constant_tables() -> dict[str, list[dict[str, Any]]]:
    attributes = sorted({attribute for _, attribute, _ in OBJECTS if attribute})
    return {
        "attribute": [{"token": f"attribute {name}", "name": name, "description": ""} for name in attributes],
        "calibrated_sensor": [_calibration(channel) for channel in SENSORS],
        "category": [{"token": f"category {name}", "name": name, "description": ""} for name, _, _ in OBJECTS],
        "ego_pose": [],
        "instance": [],
        "log": [{"token": "log", "logfile": "", "vehicle": "n000", "date_captured": "", "location": "nowhere"}],
        "map": [
            {
                "token": "map",
                "log_tokens": ["log", "a log of another version"],
                "category": "semantic_prior",
                "filename": "maps/map.png",
            }
        ],
        "sample": [],
        "sample_annotation": [],
        "sample_data": [],
        "scene": [],
        "sensor": [{"token": f"sensor {c}", "channel": c, "modality": c.split("_")[0].lower()} for c in SENSORS],
        "visibility": [{"token": "4", "level": "v80-100", "description": ""}],
    }


def _calibration(channel: str) -> dict[str, Any]:
    if channel == "LIDAR_TOP":
        rotation, position = (
            Quaternion(axis=[0, 0, 1], degrees=-90) * Quaternion(axis=[1, 0, 0], degrees=1),
            [0.9, 0, 1.8],
        )
    else:
        yaw = np.deg2rad(CAMERA_YAW_DEG[channel])
        rotation, position = Quaternion(axis=[0, 0, 1], radians=yaw) * OPTICAL, [0.9 + np.cos(yaw), np.sin(yaw), 1.5]
    focal = SIZE_WH[0] * 0.8
    intrinsic = [[focal, 0.0, SIZE_WH[0] / 2], [0.0, focal, SIZE_WH[1] / 2], [0.0, 0.0, 1.0]]
    return {
        "token": f"calibration {channel}",
        "sensor_token": f"sensor {channel}",
        "translation": [float(value) for value in position],
        "rotation": rotation.elements.tolist(),
        "camera_intrinsic": [] if channel == "LIDAR_TOP" else intrinsic,
    }


def _ego_rotation(seconds: float) -> Quaternion:
    """A turning car that leans by up to three degrees."""
    turn = Quaternion(axis=[0, 0, 1], radians=0.4 + 0.1 * seconds)
    return turn * Quaternion(axis=[0.6, 0.8, 0], degrees=3 * np.cos(seconds))


def _ego_position(seconds: float) -> list[float]:
    return [600 + 8 * seconds, 1600 + 0.5 * seconds**2, 0.0]


def _add_scene(made: MadeNuscenes, number: int, name: str, frames: int) -> None:
    start_us = START_US + number * 60_000_000
    tokens = [f"{name} sample {step}" for step in range(frames)]
    made.tables["scene"].append(
        {
            "token": f"{name} token",
            "log_token": "log",
            "nbr_samples": frames,
            "first_sample_token": tokens[0],
            "last_sample_token": tokens[-1],
            "name": name,
            "description": "",
        }
    )
    for step, token in enumerate(tokens):
        time_us = start_us + step * STEP_US
        neighbours = _neighbours(tokens, step)
        made.tables["sample"].append(
            {"token": token, "timestamp": time_us, "scene_token": f"{name} token"} | neighbours
        )
        for channel_number, channel in enumerate(SENSORS):
            offset_us = 0 if channel == "LIDAR_TOP" else -5_000 * (channel_number + 1)
            _add_sample_data(made, token, channel, time_us + offset_us, (time_us + offset_us - start_us) * 1e-6)
    for track, (category, attribute, speed_mps) in enumerate(OBJECTS):
        _add_track(made, name, track, (category, attribute, speed_mps), tokens)
    made.can_bus[name] = [_message(start_us - 30_000 + 20_000 * k, k) for k in range(25 * frames + 5)]


def _neighbours(tokens: list[str], step: int) -> dict[str, str]:
    return {
        "prev": tokens[step - 1] if step > 0 else "",
        "next": tokens[step + 1] if step + 1 < len(tokens) else "",
    }


def _add_sample_data(made: MadeNuscenes, sample: str, channel: str, time_us: int, seconds: float) -> None:
    token = f"{sample} {channel}"
    is_camera = channel != "LIDAR_TOP"
    made.tables["ego_pose"].append(
        {
            "token": token,
            "timestamp": time_us,
            "rotation": _ego_rotation(seconds).elements.tolist(),
            "translation": _ego_position(seconds),
        }
    )
    made.tables["sample_data"].append(
        {
            "token": token,
            "sample_token": sample,
            "ego_pose_token": token,
            "calibrated_sensor_token": f"calibration {channel}",
            "timestamp": time_us,
            "fileformat": "jpg" if is_camera else "pcd",
            "is_key_frame": True,
            "height": SIZE_WH[1] if is_camera else 0,
            "width": SIZE_WH[0] if is_camera else 0,
            "filename": f"samples/{channel}/{token.replace(' ', '_')}" + (".jpg" if is_camera else ".pcd.bin"),
            "prev": "",
            "next": "",
        }
    )


def _add_track(made: MadeNuscenes, scene: str, track: int, kind: tuple[str, str, float], samples: list[str]) -> None:
    category, attribute, speed_mps = kind
    tokens = [f"{scene} object {track} at {step}" for step in range(len(samples))]
    heading = 0.7 * track
    angle = 2 * np.pi * track / len(OBJECTS)
    made.tables["instance"].append(
        {
            "token": f"{scene} object {track}",
            "category_token": f"category {category}",
            "nbr_annotations": len(samples),
            "first_annotation_token": tokens[0],
            "last_annotation_token": tokens[-1],
        }
    )
    for step, (token, sample) in enumerate(zip(tokens, samples, strict=True)):
        seconds = step * STEP_US * 1e-6
        travelled = speed_mps * seconds
        made.tables["sample_annotation"].append(
            {
                "token": token,
                "sample_token": sample,
                "instance_token": f"{scene} object {track}",
                "visibility_token": "4",
                "attribute_tokens": [f"attribute {attribute}"] if attribute else [],
                "translation": [
                    606 + 15 * np.cos(angle) + travelled * np.cos(heading),
                    1600 + 15 * np.sin(angle) + travelled * np.sin(heading),
                    0.8,
                ],
                "size": [1.9, 4.5, 1.6],
                "rotation": Quaternion(axis=[0, 0, 1], radians=heading).elements.tolist(),
                "num_lidar_pts": 5 if track % 2 else 0,
                "num_radar_pts": 0 if track % 2 else 1,
            }
            | _neighbours(tokens, step)
        )


def _message(time_us: int, number: int) -> dict[str, Any]:
    return {
        "accel": [0.1 * number, 0.2, 9.8],
        "orientation": [1.0, 0.0, 0.0, 0.0],
        "pos": [1.0, 2.0, 3.0],
        "rotation_rate": [0.0, 0.01 * number, 0.02],
        "utime": time_us,
        "vel": [8.0 + number, 0.0, 0.0],
    }
