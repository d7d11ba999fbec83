"""The nuScenes rows of one scene."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.clock import Clock
from scenes.synthetic.motion import STANDING_BELOW_MPS
from scenes.synthetic.placement import Thing
from scenes.synthetic.rig import Rig, planar_pose, quaternion_wxyz
from scenes.synthetic.vocabulary import LIDAR, VISIBILITY_BOUNDS, Row, token
from schemas.frames import CAMERAS

Array = NDArray[np.float64]

ANNOTATED_RADIUS_M = 42.0
"""An object is annotated from the first to the last keyframe at which it is this near."""


@dataclass(frozen=True, eq=False)
class SceneRecord:
    """What was simulated and measured in one scene.

    Attributes:
        name: e.g. ``scene-0001``.
        seed: of the world; part of every token.
        clock, rig: when and with what it was recorded.
        lidar_ego_poses: (F, 3) x, y, yaw of the ego frame at the keyframes.
        camera_ego_poses: (F, 6, 3) when each camera fires.
        image_size_wh: pixels.
        things: M annotated objects.
        lidar_points: (F, M) returns from each object.
        radar_points: (F, M).
        visible_share: (F, M) share of each object's pixels that is seen, over all cameras.
    """

    name: str
    seed: int
    clock: Clock
    rig: Rig
    lidar_ego_poses: Array
    camera_ego_poses: Array
    image_size_wh: tuple[int, int]
    things: Sequence[Thing]
    lidar_points: NDArray[np.int64]
    radar_points: NDArray[np.int64]
    visible_share: Array

    def token(self, *names: object) -> str:
        """A token of this scene."""
        return token(self.seed, self.name, *names)

    def file_name(self, channel: str, frame: int) -> str:
        """Path of a recording, relative to the data root."""
        log = f"synthetic-{self.name}"
        if channel == LIDAR:
            return f"samples/{LIDAR}/{log}__{LIDAR}__{self.clock.lidar_us[frame]}.pcd.bin"
        stamp = self.clock.camera_us[frame, CAMERAS.index(channel)]
        return f"samples/{channel}/{log}__{channel}__{stamp}.jpg"


def scene_tables(record: SceneRecord) -> dict[str, list[Row]]:
    """Rows of every table that differs between scenes, but for ``map``, which the world has one row of."""
    frames = len(record.clock.lidar_us)
    instances, annotations = _annotations(record)
    sample_data, ego_poses = _recordings(record)
    return {
        "log": [
            {
                "token": record.token("log"),
                "logfile": f"synthetic-{record.name}",
                "vehicle": "synthetic",
                "date_captured": "2020-09-13",
                "location": "synthetic-town",
            }
        ],
        "scene": [
            {
                "token": record.token("scene"),
                "log_token": record.token("log"),
                "nbr_samples": frames,
                "first_sample_token": record.token("sample", 0),
                "last_sample_token": record.token("sample", frames - 1),
                "name": record.name,
                "description": "A synthetic drive",
            }
        ],
        "sample": [
            {
                "token": record.token("sample", frame),
                "timestamp": int(record.clock.lidar_us[frame]),
                "prev": record.token("sample", frame - 1) if frame > 0 else "",
                "next": record.token("sample", frame + 1) if frame + 1 < frames else "",
                "scene_token": record.token("scene"),
            }
            for frame in range(frames)
        ],
        "calibrated_sensor": _calibration(record),
        "sample_data": sample_data,
        "ego_pose": ego_poses,
        "instance": instances,
        "sample_annotation": annotations,
    }


def _calibration(record: SceneRecord) -> list[Row]:
    poses = {LIDAR: record.rig.ego_from_lidar, **dict(zip(CAMERAS, record.rig.ego_from_camera, strict=True))}
    intrinsics = dict(zip(CAMERAS, record.rig.intrinsics.tolist(), strict=True))
    return [
        {
            "token": record.token("calibrated_sensor", channel),
            "sensor_token": token("sensor", channel),
            "translation": pose[:3, 3].tolist(),
            "rotation": quaternion_wxyz(pose[:3, :3]),
            "camera_intrinsic": intrinsics.get(channel, []),
        }
        for channel, pose in poses.items()
    ]


def _recordings(record: SceneRecord) -> tuple[list[Row], list[Row]]:
    """sample_data and ego_pose rows, one of each per recording, sharing a token as in nuScenes."""
    sample_data: list[Row] = []
    ego_poses: list[Row] = []
    frames = len(record.clock.lidar_us)
    for frame in range(frames):
        stamps = [int(record.clock.lidar_us[frame]), *record.clock.camera_us[frame].tolist()]
        poses = [record.lidar_ego_poses[frame], *record.camera_ego_poses[frame]]
        for channel, stamp, pose in zip((LIDAR, *CAMERAS), stamps, poses, strict=True):
            is_camera = channel != LIDAR
            own = record.token("sample_data", channel, frame)
            ego_poses.append({"token": own, "timestamp": stamp, **_pose_columns(pose)})
            sample_data.append(
                {
                    "token": own,
                    "sample_token": record.token("sample", frame),
                    "ego_pose_token": own,
                    "calibrated_sensor_token": record.token("calibrated_sensor", channel),
                    "timestamp": stamp,
                    "fileformat": "jpg" if is_camera else "pcd",
                    "is_key_frame": True,
                    "height": record.image_size_wh[1] if is_camera else 0,
                    "width": record.image_size_wh[0] if is_camera else 0,
                    "filename": record.file_name(channel, frame),
                    "prev": record.token("sample_data", channel, frame - 1) if frame > 0 else "",
                    "next": record.token("sample_data", channel, frame + 1) if frame + 1 < frames else "",
                }
            )
    return sample_data, ego_poses


def _pose_columns(pose: Array) -> Row:
    x, y, yaw = pose.tolist()
    return {"rotation": quaternion_wxyz(planar_pose(x, y, yaw)[:3, :3]), "translation": [x, y, 0.0]}


def _annotations(record: SceneRecord) -> tuple[list[Row], list[Row]]:
    instances: list[Row] = []
    annotations: list[Row] = []
    ego = record.lidar_ego_poses[:, :2]
    for number, thing in enumerate(record.things):
        near = np.nonzero(np.linalg.norm(thing.lidar_poses[:, :2] - ego, axis=1) < ANNOTATED_RADIUS_M)[0]
        if not len(near):
            continue
        first, last = int(near[0]), int(near[-1])
        instances.append(
            {
                "token": record.token("instance", number),
                "category_token": token("category", thing.category),
                "nbr_annotations": last - first + 1,
                "first_annotation_token": record.token("annotation", number, first),
                "last_annotation_token": record.token("annotation", number, last),
            }
        )
        for frame in range(first, last + 1):
            row = _annotation(record, number, frame)
            row["prev"] = record.token("annotation", number, frame - 1) if frame > first else ""
            row["next"] = record.token("annotation", number, frame + 1) if frame < last else ""
            annotations.append(row)
    return instances, annotations


def _annotation(record: SceneRecord, number: int, frame: int) -> Row:
    thing = record.things[number]
    x, y, yaw = thing.lidar_poses[frame].tolist()
    attribute = attribute_of(thing, frame)
    level = int(np.searchsorted(VISIBILITY_BOUNDS, record.visible_share[frame, number], side="right"))
    return {
        "token": record.token("annotation", number, frame),
        "sample_token": record.token("sample", frame),
        "instance_token": record.token("instance", number),
        "visibility_token": str(level + 1),
        "attribute_tokens": [token("attribute", attribute)] if attribute else [],
        "translation": np.round([x, y, thing.size_wlh_m[2] / 2], 4).tolist(),
        "size": thing.size_wlh_m.tolist(),
        "rotation": [float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))],
        "num_lidar_pts": int(record.lidar_points[frame, number]),
        "num_radar_pts": int(record.radar_points[frame, number]),
    }


def attribute_of(thing: Thing, frame: int) -> str:
    """The nuScenes attribute of an object at a keyframe; empty for barriers and cones, which have none."""
    moving = bool(thing.speed_mps[frame] >= STANDING_BELOW_MPS)
    if thing.name in ("barrier", "traffic_cone"):
        return ""
    if thing.name in ("bicycle", "motorcycle"):
        return "cycle.with_rider" if thing.has_rider else "cycle.without_rider"
    if thing.name == "pedestrian":
        return "pedestrian.moving" if moving else "pedestrian.standing"
    if moving:
        return "vehicle.moving"
    return "vehicle.stopped" if thing.place == "lane" else "vehicle.parked"
