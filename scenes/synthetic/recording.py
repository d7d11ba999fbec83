"""Records one scene: pictures, LiDAR sweeps, CAN bus messages, and what they hold of each object."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.bodies import Sighting
from scenes.synthetic.can_bus import pose_messages
from scenes.synthetic.lidar import GROUND, sweep
from scenes.synthetic.options import KEYFRAME_INTERVAL_S, SENSED_RADIUS_M, WorldOptions
from scenes.synthetic.pictures import take_pictures
from scenes.synthetic.plan import ScenePlan, scene_generator
from scenes.synthetic.tables import file_name
from scenes.synthetic.view import ahead_of, relative_poses
from scenes.synthetic.vocabulary import LIDAR

REMEMBERED_S = 4.0
"""An object that a camera has seen this recently keeps a radar point, so the evaluation scores it though hidden."""
SEEN_PIXELS = 4
"""Fewer visible pixels than this do not count as seen."""


@dataclass(frozen=True, eq=False)
class Recording:
    """What the sensors of a scene hold of each annotated object.

    Attributes:
        sighting: (F, M) pixels.
        lidar_points: (F, M) returns from each object.
        radar_points: (F, M).
    """

    sighting: Sighting
    lidar_points: NDArray[np.int64]
    radar_points: NDArray[np.int64]


def record_scene(options: WorldOptions, plan: ScenePlan, data_root: Path) -> Recording:
    """Write all files of a scene but its tables below ``data_root``, whose folders exist."""
    size_wh = (options.image_width, options.image_height)
    in_range = _in_range(plan)
    lidar_points = _sweep_lidar(scene_generator(options, plan.name, "lidar"), plan, in_range, data_root)
    sighting = take_pictures(scene_generator(options, plan.name, "pictures"), plan, size_wh, data_root)
    messages = pose_messages(scene_generator(options, plan.name, "can"), plan.town.drive, plan.clock)
    text = json.dumps(messages, separators=(",", ":"))
    (data_root / "can_bus" / f"{plan.name}_pose.json").write_text(text)
    return Recording(sighting, lidar_points, radar_points(sighting.shown, in_range))


def radar_points(shown_pixels: NDArray[np.int64], in_range: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(F, M) one point for everything in range that a camera sees or has seen in the last ``REMEMBERED_S``.

    Radar reaches under and around what hides an object from the cameras; what was never seen gets none, as no memory
    could know of it.
    """
    seen = shown_pixels >= SEEN_PIXELS
    keyframes = round(REMEMBERED_S / KEYFRAME_INTERVAL_S)
    known = np.stack([seen[max(0, frame - keyframes) : frame + 1].any(axis=0) for frame in range(len(seen))])
    points: NDArray[np.int64] = (known & in_range).astype(np.int64)
    return points


def _in_range(plan: ScenePlan) -> NDArray[np.bool_]:
    """(F, M) whether an object's centre is within reach of the sensors."""
    lidar_xy_m = ahead_of(plan.lidar_ego_poses, *plan.rig.ego_from_lidar[:2, 3].tolist())[:, :2]
    centers = np.stack([thing.lidar_poses[:, :2] for thing in plan.things], axis=1)
    return np.asarray(np.linalg.norm(centers - lidar_xy_m[:, None], axis=2) < SENSED_RADIUS_M)


def _sweep_lidar(
    rng: np.random.Generator, plan: ScenePlan, in_range: NDArray[np.bool_], data_root: Path
) -> NDArray[np.int64]:
    """Write all sweeps; returns (F, M) returns from each object. Objects out of range neither answer nor hide."""
    things = len(plan.things)
    still = np.array([block.pose for block in plan.blocks]).reshape(-1, 3)
    counts = np.zeros((len(in_range), things), dtype=np.int64)
    for frame, ego_pose in enumerate(plan.lidar_ego_poses):
        poses = np.concatenate([np.array([thing.lidar_poses[frame] for thing in plan.things]), still])
        answering = np.nonzero(np.append(in_range[frame], np.ones(len(still), dtype=np.bool_)))[0]
        local = relative_poses(poses[answering], ego_pose)
        turn = sweep(rng, plan.rig.ego_from_lidar, local, plan.body_sizes_lwh_m[answering], int(in_range[frame].sum()))
        turn.points.tofile(data_root / file_name(plan.name, LIDAR, int(plan.clock.lidar_us[frame])))
        hits = answering[turn.hits[turn.hits != GROUND]]
        counts[frame] = np.bincount(hits, minlength=len(poses))[:things]
    return counts
