"""The nuScenes rows of one scene."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.motion import STANDING_BELOW_MPS
from scenes.synthetic.plan import ScenePlan
from scenes.synthetic.rig import planar_pose, quaternion_wxyz
from scenes.synthetic.things import Thing
from scenes.synthetic.vocabulary import LIDAR, VISIBILITY_BOUNDS, Row, token
from schemas.frames import CAMERAS

Array = NDArray[np.float64]

SCENE_TABLES = (
    "log",
    "scene",
    "sample",
    "calibrated_sensor",
    "sample_data",
    "ego_pose",
    "instance",
    "sample_annotation",
)
"""Tables with rows of their own for each scene."""

ANNOTATED_RADIUS_M = 36.0
"""An object is annotated from just before the first to just after the last keyframe at which it is this near, so that
its velocity can always be told."""


@dataclass(frozen=True, eq=False)
class SceneRows:
    """What the rows of one scene are made from.

    Attributes:
        plan: the scene.
        image_size_wh: pixels.
        lidar_points: (F, M) returns from each object.
        radar_points: (F, M).
        visible_share: (F, M) share of each object's pixels that is seen, over all cameras.
    """

    plan: ScenePlan
    image_size_wh: tuple[int, int]
    lidar_points: NDArray[np.int64]
    radar_points: NDArray[np.int64]
    visible_share: Array

    def token(self, *names: object) -> str:
        """A token of this scene."""
        return token(self.plan.seed, self.plan.name, *names)

    def neighbours(self, frame: int, span: tuple[int, int], *names: object) -> Row:
        """The prev and next tokens of a chain that runs over the frames ``span``, both included."""
        return {
            "prev": self.token(*names, frame - 1) if frame > span[0] else "",
            "next": self.token(*names, frame + 1) if frame < span[1] else "",
        }


def file_name(scene_name: str, channel: str, timestamp_us: int) -> str:
    """Path of a recording relative to the data root."""
    ending = "pcd.bin" if channel == LIDAR else "jpg"
    return f"samples/{channel}/synthetic-{scene_name}__{channel}__{timestamp_us}.{ending}"


def scene_tables(record: SceneRows) -> dict[str, list[Row]]:
    """Rows of each of ``SCENE_TABLES``."""
    frames = len(record.plan.clock.lidar_us)
    instances, annotations = _annotations(record)
    sample_data, ego_poses = _recordings(record)
    return {
        "log": [
            {
                "token": record.token("log"),
                "logfile": f"synthetic-{record.plan.name}",
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
                "name": record.plan.name,
                "description": "A synthetic drive",
            }
        ],
        "sample": [_sample(record, frame) for frame in range(frames)],
        "calibrated_sensor": _calibration(record),
        "sample_data": sample_data,
        "ego_pose": ego_poses,
        "instance": instances,
        "sample_annotation": annotations,
    }


def _sample(record: SceneRows, frame: int) -> Row:
    return {
        "token": record.token("sample", frame),
        "timestamp": int(record.plan.clock.lidar_us[frame]),
        **record.neighbours(frame, (0, len(record.plan.clock.lidar_us) - 1), "sample"),
        "scene_token": record.token("scene"),
    }


def _calibration(record: SceneRows) -> list[Row]:
    poses = {LIDAR: record.plan.rig.ego_from_lidar, **dict(zip(CAMERAS, record.plan.rig.ego_from_camera, strict=True))}
    intrinsics = dict(zip(CAMERAS, record.plan.rig.intrinsics.tolist(), strict=True))
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


def _recordings(record: SceneRows) -> tuple[list[Row], list[Row]]:
    """sample_data and ego_pose rows, one of each per recording, sharing a token as in nuScenes."""
    sample_data: list[Row] = []
    ego_poses: list[Row] = []
    frames = len(record.plan.clock.lidar_us)
    for frame in range(frames):
        stamps = [int(record.plan.clock.lidar_us[frame]), *record.plan.clock.camera_us[frame].tolist()]
        poses = [record.plan.lidar_ego_poses[frame], *record.plan.camera_ego_poses[frame]]
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
                    "filename": file_name(record.plan.name, channel, stamp),
                    **record.neighbours(frame, (0, frames - 1), "sample_data", channel),
                }
            )
    return sample_data, ego_poses


def _pose_columns(pose: Array) -> Row:
    x, y, yaw = pose.tolist()
    return {"rotation": quaternion_wxyz(planar_pose(x, y, yaw)[:3, :3]), "translation": [x, y, 0.0]}


def _annotations(record: SceneRows) -> tuple[list[Row], list[Row]]:
    instances: list[Row] = []
    annotations: list[Row] = []
    ego = record.plan.lidar_ego_poses[:, :2]
    for number, thing in enumerate(record.plan.things):
        near = np.nonzero(np.linalg.norm(thing.lidar_poses[:, :2] - ego, axis=1) < ANNOTATED_RADIUS_M)[0]
        if not len(near):
            continue
        first, last = max(0, int(near[0]) - 1), min(len(ego), int(near[-1]) + 2) - 1
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
            chain = record.neighbours(frame, (first, last), "annotation", number)
            annotations.append({**_annotation(record, number, frame), **chain})
    return instances, annotations


def _annotation(record: SceneRows, number: int, frame: int) -> Row:
    thing = record.plan.things[number]
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
