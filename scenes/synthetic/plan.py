"""Everything about a scene that is decided before anything is drawn or measured."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.clock import Clock, set_clock
from scenes.synthetic.options import WorldOptions
from scenes.synthetic.placement import populate
from scenes.synthetic.rig import Rig, calibrate
from scenes.synthetic.scenery import Block
from scenes.synthetic.things import Thing
from scenes.synthetic.town import Town, plan_town
from schemas.frames import CAMERAS

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ScenePlan:
    """A scene: when and with what it is recorded, where the drive goes, and what stands and moves there.

    Attributes:
        name: e.g. ``scene-0001``.
        seed: of the world.
        rig, clock, town: calibration, times, streets and drive.
        things: M annotated objects.
        blocks: scenery.
        body_sizes_lwh_m: (M + blocks, 3) of all bodies, things first.
        lidar_ego_poses: (F, 3) x, y, yaw of the ego frame at the keyframes, global.
        camera_ego_poses: (F, 6, 3) when each camera fires.
    """

    name: str
    seed: int
    rig: Rig
    clock: Clock
    town: Town
    things: tuple[Thing, ...]
    blocks: tuple[Block, ...]
    body_sizes_lwh_m: Array
    lidar_ego_poses: Array
    camera_ego_poses: Array


def plan_scene(options: WorldOptions, name: str) -> ScenePlan:
    """Plan a scene. It depends on the seed, the scene's name and the number of frames, on no other scene."""
    rng = scene_generator(options, name, "plan")
    rig = calibrate(rng, options.image_width, options.image_height)
    clock = set_clock(rng, int(name[-4:]), options.frames_per_scene, rig.early_us)
    town = plan_town(rng, clock.duration_s)
    things, blocks = populate(rng, town, clock)
    sizes = [thing.size_wlh_m[[1, 0, 2]] for thing in things] + [block.size_lwh_m for block in blocks]
    camera_poses = town.drive.poses(clock.camera_s.ravel()).reshape(len(clock.lidar_us), len(CAMERAS), 3)
    return ScenePlan(
        name=name,
        seed=options.seed,
        rig=rig,
        clock=clock,
        town=town,
        things=things,
        blocks=blocks,
        body_sizes_lwh_m=np.array(sizes),
        lidar_ego_poses=town.drive.poses(clock.lidar_s),
        camera_ego_poses=camera_poses,
    )


def scene_generator(options: WorldOptions, name: str, purpose: str) -> np.random.Generator:
    """Random numbers for one purpose in one scene, whichever process asks for them and in whatever order."""
    return np.random.default_rng([options.seed, int(name[-4:]), *purpose.encode()])
