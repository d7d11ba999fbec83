"""Detections as a nuScenes detection submission (JSON), by the rules of the published exporter."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenes.box_frames import GlobalBoxes, to_global, to_lidar
from scenes.scene_tables import SceneTables
from scenes.whole_file import whole_file
from schemas.boxes import CLASS_NAMES, Boxes, empty_boxes
from schemas.errors import DataError
from schemas.frames import Frame

SUBMISSION_FILE = "submission.json"
MAX_BOXES_PER_SAMPLE = 500
MOVING_MPS = 0.2

CLASS_RANGE_M: Mapping[str, float] = {
    "car": 50.0,
    "truck": 50.0,
    "construction_vehicle": 50.0,
    "bus": 50.0,
    "trailer": 50.0,
    "barrier": 30.0,
    "motorcycle": 40.0,
    "bicycle": 40.0,
    "pedestrian": 40.0,
    "traffic_cone": 30.0,
}
"""How far from the ego vehicle the configuration ``detection_cvpr_2019`` scores each class."""

_MOVING = {"bicycle": "cycle.with_rider", "motorcycle": "cycle.with_rider"} | dict.fromkeys(
    ("car", "construction_vehicle", "bus", "truck", "trailer"), "vehicle.moving"
)
_STANDING = {"pedestrian": "pedestrian.standing", "bus": "vehicle.stopped"}
_DEFAULT = {
    "car": "vehicle.parked",
    "truck": "vehicle.parked",
    "trailer": "vehicle.parked",
    "construction_vehicle": "vehicle.parked",
    "bus": "vehicle.moving",
    "pedestrian": "pedestrian.moving",
    "bicycle": "cycle.without_rider",
    "motorcycle": "cycle.without_rider",
    "barrier": "",
    "traffic_cone": "",
}


def attribute_name(class_name: str, speed_mps: float) -> str:
    """The attribute that the published exporter guesses from class and speed; '' for classes without any."""
    special = _MOVING if speed_mps > MOVING_MPS else _STANDING
    return special.get(class_name, _DEFAULT[class_name])


def submission_boxes(frame: Frame, detections: Boxes) -> list[dict[str, Any]]:
    """Rows of one sample: in range, the best 500, in the global frame, in plain Python numbers.

    Args:
        frame: the keyframe of the detections.
        detections: scored boxes in its LiDAR frame.

    Raises:
        DataError: a detection holds NaN or infinity, or a size that is not positive.
    """
    assert detections.scores is not None, "detections have scores"
    _check_finite(frame.sample_token, detections)
    boxes = to_global(detections, frame.global_from_lidar)
    in_range = np.flatnonzero(in_class_range(frame, detections))
    best = in_range[np.argsort(-detections.scores[in_range], kind="stable")][:MAX_BOXES_PER_SAMPLE]
    return _rows(frame.sample_token, boxes, detections.scores, best)


def in_class_range(frame: Frame, boxes: Boxes) -> NDArray[np.bool_]:
    """(N,) bool: boxes of a keyframe, in its LiDAR frame, that are near enough to the ego vehicle to be scored."""
    translation_m = boxes.center_m @ frame.global_from_lidar[:3, :3].T + frame.global_from_lidar[:3, 3]
    offset_m = translation_m[:, :2] - frame.global_from_ego[:2, 3]
    limit_m = np.array([CLASS_RANGE_M[name] for name in CLASS_NAMES])[boxes.labels]
    near: NDArray[np.bool_] = np.hypot(offset_m[:, 0], offset_m[:, 1]) <= limit_m
    return near


def write_submission(path: Path, results: Mapping[str, list[dict[str, Any]]]) -> None:
    """Write the submission file, whole or not at all.

    Args:
        path: the JSON file.
        results: rows by sample token; every sample of the split, empty lists included.
    """
    meta = {"use_camera": True, "use_lidar": False, "use_radar": False, "use_map": False, "use_external": False}
    # Sample by sample: json's encoder of whole values is C and three times faster than the one that hands out parts of
    # a document, which is Python; and a whole document would be held in memory twice.
    with whole_file(path) as file:
        file.write(f'{{"meta": {json.dumps(meta)}, "results": {{'.encode())
        for number, (token, rows) in enumerate(results.items()):
            text = f"{', ' if number else ''}{json.dumps(token)}: {json.dumps(rows, allow_nan=False)}"
            file.write(text.encode())
        file.write(b"}}")


def read_submission(path: Path, tables: SceneTables) -> dict[str, Boxes]:
    """The detections of a submission file, in the LiDAR frames of their samples: what the score has seen of them.

    Args:
        path: JSON in the form of the nuScenes detection task.
        tables: the version of its samples.

    Raises:
        DataError: the file is none, or names a sample that the version does not have.
    """
    try:
        results = json.loads(path.read_text())["results"]
        return {token: _boxes(tables.frame(token), rows) for token, rows in results.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no nuScenes submission ({error!r}). Remove it, and evaluate again.") from error


def _boxes(frame: Frame, rows: list[dict[str, Any]]) -> Boxes:
    if not rows:
        return empty_boxes(scored=True)
    boxes = GlobalBoxes(
        translation_m=np.array([row["translation"] for row in rows], dtype=np.float64),
        size_wlh_m=np.array([row["size"] for row in rows], dtype=np.float64),
        rotation_wxyz=np.array([row["rotation"] for row in rows], dtype=np.float64),
        velocity_mps=np.array([row["velocity"] for row in rows], dtype=np.float64),
        labels=np.array([CLASS_NAMES.index(row["detection_name"]) for row in rows], dtype=np.int64),
    )
    scores = np.array([row["detection_score"] for row in rows], dtype=np.float64)
    return replace(to_lidar(boxes, np.linalg.inv(frame.global_from_lidar)), scores=scores)


def _rows(
    sample_token: str, boxes: GlobalBoxes, scores: NDArray[np.float64], chosen: NDArray[np.int64]
) -> list[dict[str, Any]]:
    velocity_mps = np.nan_to_num(boxes.velocity_mps)
    speed_mps = np.hypot(velocity_mps[:, 0], velocity_mps[:, 1])
    return [
        {
            "sample_token": sample_token,
            "translation": boxes.translation_m[row].tolist(),
            "size": boxes.size_wlh_m[row].tolist(),
            "rotation": boxes.rotation_wxyz[row].tolist(),
            "velocity": velocity_mps[row].tolist(),
            "detection_name": CLASS_NAMES[boxes.labels[row]],
            "detection_score": float(scores[row]),
            "attribute_name": attribute_name(CLASS_NAMES[boxes.labels[row]], float(speed_mps[row])),
        }
        for row in chosen.tolist()
    ]


def _check_finite(sample_token: str, detections: Boxes) -> None:
    for name in ("center_m", "size_wlh_m", "yaw_rad", "velocity_mps", "scores"):
        values = getattr(detections, name)
        wrong = ~np.isfinite(values) if name != "size_wlh_m" else ~(np.isfinite(values) & (values > 0))
        if wrong.any():
            raise DataError(
                f"detections of sample {sample_token}: {name} must be finite{' and positive' if 'size' in name else ''}"
                f", got {values[wrong][0]} in {int(wrong.reshape(len(values), -1).any(axis=1).sum())} of {len(values)} "
                "boxes. The detector's weights are damaged or its training diverged; use an earlier checkpoint."
            )
