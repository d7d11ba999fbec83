"""Simulates one scene and writes its recordings: pictures, LiDAR sweeps and CAN bus messages."""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.backdrop import paint_backdrop
from scenes.synthetic.can_bus import pose_messages
from scenes.synthetic.clock import Clock, set_clock
from scenes.synthetic.facades import facade_of
from scenes.synthetic.ground import paint_ground
from scenes.synthetic.lidar import sweep
from scenes.synthetic.options import KEYFRAME_INTERVAL_S, SENSED_RADIUS_M, WorldOptions
from scenes.synthetic.painter_order import PaintOrder
from scenes.synthetic.placement import Population, populate
from scenes.synthetic.render import Light, SceneRenderer, Stage, View
from scenes.synthetic.rig import Rig, calibrate
from scenes.synthetic.shapes import shape_of
from scenes.synthetic.surfaces import join
from scenes.synthetic.tables import SceneRecord
from scenes.synthetic.town import Town, plan_town
from scenes.synthetic.vocabulary import LIDAR
from schemas.frames import CAMERAS

Array = NDArray[np.float64]

JPEG_QUALITY = 90
REMEMBERED_S = 4.0
"""An object that a camera has seen this recently keeps a radar point, so the evaluation scores it though hidden."""
SEEN_PIXELS = 4
"""Fewer visible pixels than this do not count as seen."""


@dataclass(frozen=True, eq=False)
class ScenePlan:
    """A scene before anything is drawn."""

    name: str
    rig: Rig
    clock: Clock
    town: Town
    population: Population


def plan_scene(options: WorldOptions, name: str) -> ScenePlan:
    """Decide everything about a scene; depends on the seed, the name, and the number of frames."""
    number = int(name[-4:])
    rng = np.random.default_rng([options.seed, number, 0])
    rig = calibrate(rng, options.image_width, options.image_height)
    clock = set_clock(rng, number, options.frames_per_scene, rig.early_us)
    town = plan_town(rng, clock.duration_s)
    return ScenePlan(name, rig, clock, town, populate(rng, town, clock))


def record_scene(options: WorldOptions, name: str, data_root: Path) -> SceneRecord:
    """Simulate a scene and write its files below ``data_root``."""
    plan = plan_scene(options, name)
    rng = np.random.default_rng([options.seed, int(name[-4:]), 1])
    clock, drive, things = plan.clock, plan.town.drive, plan.population.things
    frames, count = len(clock.lidar_us), len(things)
    record = SceneRecord(
        name=name,
        seed=options.seed,
        clock=clock,
        rig=plan.rig,
        lidar_ego_poses=drive.poses(clock.lidar_s),
        camera_ego_poses=drive.poses(clock.camera_s.ravel()).reshape(frames, len(CAMERAS), 3),
        image_size_wh=(options.image_width, options.image_height),
        things=things,
        lidar_points=np.zeros((frames, count), dtype=np.int64),
        radar_points=np.zeros((frames, count), dtype=np.int64),
        visible_share=np.zeros((frames, count)),
    )
    _sweep_lidar(rng, plan, record, data_root)
    shown = _take_pictures(rng, plan, record, data_root)
    record.radar_points[:] = radar_points(record, shown)
    messages = json.dumps(pose_messages(rng, drive, clock), separators=(",", ":"))
    (data_root / "can_bus" / f"{name}_pose.json").write_text(messages)
    return record


def radar_points(record: SceneRecord, shown_pixels: NDArray[np.int64]) -> NDArray[np.int64]:
    """(F, M) one point for everything in range that a camera sees or has seen in the last ``REMEMBERED_S``.

    Radar reaches under and around what hides an object from the cameras; what was never seen gets none, as no memory
    could know of it.
    """
    seen = shown_pixels >= SEEN_PIXELS
    keyframes = round(REMEMBERED_S / KEYFRAME_INTERVAL_S)
    known = np.stack([seen[max(0, frame - keyframes) : frame + 1].any(axis=0) for frame in range(len(seen))])
    points: NDArray[np.int64] = (known & _in_range(record)).astype(np.int64)
    return points


def _in_range(record: SceneRecord) -> NDArray[np.bool_]:
    """(F, M) whether an object's centre is within reach of the sensors."""
    reach = [
        np.linalg.norm(thing.lidar_poses[:, :2] - _lidar_xy_m(record), axis=1) < SENSED_RADIUS_M
        for thing in record.things
    ]
    return np.stack(reach, axis=1)


def _lidar_xy_m(record: SceneRecord) -> Array:
    x, y, yaw = record.lidar_ego_poses.T
    forward, left = record.rig.ego_from_lidar[:2, 3]
    return np.stack(
        [x + forward * np.cos(yaw) - left * np.sin(yaw), y + forward * np.sin(yaw) + left * np.cos(yaw)], axis=1
    )


def _sweep_lidar(rng: np.random.Generator, plan: ScenePlan, record: SceneRecord, data_root: Path) -> None:
    blocks = plan.population.blocks
    sizes = _sizes_lwh_m(plan.population)
    in_range = _in_range(record)
    for frame, ego in enumerate(record.lidar_ego_poses):
        things = [thing.lidar_poses[frame] for thing in record.things]
        poses = np.array(things + [block.pose for block in blocks])
        cos, sin = np.cos(ego[2]), np.sin(ego[2])
        gap = poses[:, :2] - ego[:2]
        local = np.stack(
            [cos * gap[:, 0] + sin * gap[:, 1], cos * gap[:, 1] - sin * gap[:, 0], poses[:, 2] - ego[2]], 1
        )
        answering = np.nonzero(np.concatenate([in_range[frame], np.ones(len(blocks), dtype=np.bool_)]))[0]
        turn = sweep(rng, plan.rig.ego_from_lidar, local[answering], sizes[answering])
        turn.points.tofile(data_root / record.file_name(LIDAR, frame))
        hit = answering[turn.hits[turn.hits >= 0]]
        record.lidar_points[frame] = np.bincount(hit, minlength=len(sizes))[: len(record.things)]


def _take_pictures(
    rng: np.random.Generator, plan: ScenePlan, record: SceneRecord, data_root: Path
) -> NDArray[np.int64]:
    """Write all pictures; returns the visible pixels of each object, (F, M) over all cameras."""
    renderer = _renderer(rng, plan, record)
    sizes = _sizes_lwh_m(plan.population)
    width, height = record.image_size_wh
    gain = rng.uniform(0.85, 1.12) * rng.uniform(0.96, 1.04, len(CAMERAS))
    grain = np.round(rng.normal(0, 2.5, (height + 64, width + 64, 3))).astype(np.int16)
    still = np.array([block.pose for block in plan.population.blocks]).reshape(-1, 3)
    camera_from_ego = np.linalg.inv(plan.rig.ego_from_camera)
    shown = np.zeros_like(record.lidar_points)
    whole = np.zeros_like(record.lidar_points)
    for frame in range(len(record.lidar_ego_poses)):
        at_keyframe = np.array([thing.lidar_poses[frame] for thing in record.things]).reshape(-1, 3)
        order = PaintOrder(np.concatenate([at_keyframe, still]), sizes[:, :2] / 2)
        for number, channel in enumerate(CAMERAS):
            moving = np.array([thing.camera_poses[frame, number] for thing in record.things]).reshape(-1, 3)
            view = View(plan.rig.intrinsics[number], camera_from_ego[number], record.camera_ego_poses[frame, number])
            picture, sighting = renderer.render(view, np.concatenate([moving, still]), order, (width, height))
            shown[frame] += sighting.shown
            whole[frame] += sighting.whole
            row, column = rng.integers(0, 64, 2)
            exposed = cv2.convertScaleAbs(cv2.GaussianBlur(picture, (3, 3), 0.5), alpha=float(gain[number]))
            noisy = cv2.add(exposed, grain[row : row + height, column : column + width], dtype=cv2.CV_8U)
            _write_jpeg(np.asarray(noisy, dtype=np.uint8), data_root / record.file_name(channel, frame))
    record.visible_share[:] = shown / np.maximum(whole, 1)
    return shown


def _renderer(rng: np.random.Generator, plan: ScenePlan, record: SceneRecord) -> SceneRenderer:
    bodies = [shape_of(thing) for thing in plan.population.things]
    bodies += [facade_of(block) for block in plan.population.blocks]
    owners = np.repeat(np.arange(len(bodies)), [len(body.levels) for body in bodies])
    stage = Stage(join(bodies), owners, _sizes_lwh_m(plan.population), len(plan.population.things))
    haze = rng.uniform((188, 196, 204), (218, 218, 222))
    azimuth, elevation = rng.uniform(-np.pi, np.pi), np.radians(rng.uniform(28, 65))
    flat = np.cos(elevation)
    light = Light(
        np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)]),
        ambient=float(rng.uniform(0.5, 0.68)),
        tint=rng.uniform(0.93, 1.05, 3),
        haze=haze,
    )
    ground = paint_ground(rng, plan.town, record.lidar_ego_poses[:, :2])
    return SceneRenderer(stage, light, ground, paint_backdrop(rng, haze))


def _sizes_lwh_m(population: Population) -> Array:
    """(N, 3) of all bodies, things first."""
    sizes = [thing.size_wlh_m[[1, 0, 2]] for thing in population.things]
    return np.array(sizes + [block.size_lwh_m for block in population.blocks]).reshape(-1, 3)


def _write_jpeg(picture_rgb: NDArray[np.uint8], path: Path) -> None:
    done, encoded = cv2.imencode(".jpg", picture_rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done, path
    path.write_bytes(encoded.tobytes())
