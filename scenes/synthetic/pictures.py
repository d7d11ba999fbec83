"""Takes the pictures of a scene: six cameras, their noise and exposure, written as JPEG."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.backdrop import paint_backdrop
from scenes.synthetic.bodies import Bodies, Cast, Sighting
from scenes.synthetic.facades import facade_of
from scenes.synthetic.ground import paint_ground
from scenes.synthetic.light import draw_light
from scenes.synthetic.paint_order import PaintOrder
from scenes.synthetic.plan import ScenePlan
from scenes.synthetic.shapes import shape_of
from scenes.synthetic.surfaces import join
from scenes.synthetic.surroundings import Surroundings
from scenes.synthetic.tables import file_name
from scenes.synthetic.view import Camera, relative_poses
from schemas.frames import CAMERAS

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

JPEG_QUALITY = 90
NOISE_STD = 2.5
_NOISE_SHIFTS = 64


def take_pictures(rng: np.random.Generator, plan: ScenePlan, size_wh: tuple[int, int], data_root: Path) -> Sighting:
    """Write all pictures of a scene below ``data_root``.

    Returns:
        What they show of each object, (F, M) summed over the cameras of a keyframe.
    """
    painters = _painters(rng, plan, size_wh)
    sensors = [_Sensor(rng, size_wh) for _ in CAMERAS]
    still = np.array([block.pose for block in plan.blocks]).reshape(-1, 3)
    frames, things = len(plan.clock.lidar_us), len(plan.things)
    shown, whole = np.zeros((2, frames, things), dtype=np.int64)
    for frame in range(frames):
        standing = np.concatenate([np.array([thing.lidar_poses[frame] for thing in plan.things]), still])
        order = PaintOrder(standing, plan.body_sizes_lwh_m[:, :2] / 2)
        for number, (channel, (surroundings, bodies)) in enumerate(zip(CAMERAS, painters, strict=True)):
            moving = np.array([thing.camera_poses[frame, number] for thing in plan.things])
            ego_pose = plan.camera_ego_poses[frame, number]
            picture = surroundings.draw(ego_pose)
            relative = relative_poses(np.concatenate([moving, still]), ego_pose)
            sighting = bodies.draw(picture, relative, ego_pose, order)
            shown[frame] += sighting.shown
            whole[frame] += sighting.whole
            path = data_root / file_name(plan.name, channel, int(plan.clock.camera_us[frame, number]))
            _write_jpeg(sensors[number].expose(rng, picture), path)
    return Sighting(shown, whole)


def _painters(rng: np.random.Generator, plan: ScenePlan, size_wh: tuple[int, int]) -> list[tuple[Surroundings, Bodies]]:
    """What draws the background and the bodies, for each camera."""
    shapes = [shape_of(thing) for thing in plan.things] + [facade_of(block) for block in plan.blocks]
    owners = np.repeat(np.arange(len(shapes)), [len(shape.levels) for shape in shapes])
    cast = Cast(join(shapes), owners, plan.body_sizes_lwh_m, len(plan.things))
    light = draw_light(rng)
    ground = paint_ground(rng, plan.town, plan.lidar_ego_poses[:, :2])
    backdrop = paint_backdrop(rng, light.haze)
    cameras = [
        Camera(intrinsics, np.linalg.inv(ego_from_camera), size_wh)
        for intrinsics, ego_from_camera in zip(plan.rig.intrinsics, plan.rig.ego_from_camera, strict=True)
    ]
    return [(Surroundings(camera, ground, backdrop, light), Bodies(camera, cast, light)) for camera in cameras]


class _Sensor:
    """An image sensor: its exposure, slight blur, and noise."""

    def __init__(self, rng: np.random.Generator, size_wh: tuple[int, int]) -> None:
        width, height = size_wh
        self._gain = float(rng.uniform(0.86, 1.14))
        noise = rng.normal(0, NOISE_STD, (height + _NOISE_SHIFTS, width + _NOISE_SHIFTS, 3))
        self._noise = np.round(noise).astype(np.int16)

    def expose(self, rng: np.random.Generator, picture: Image) -> Image:
        row, column = rng.integers(0, _NOISE_SHIFTS, 2)
        height, width = picture.shape[:2]
        exposed = cv2.convertScaleAbs(cv2.GaussianBlur(picture, (3, 3), 0.5), alpha=self._gain)
        noise = self._noise[row : row + height, column : column + width]
        return np.asarray(cv2.add(exposed, noise, dtype=cv2.CV_8U), dtype=np.uint8)


def _write_jpeg(picture_rgb: Image, path: Path) -> None:
    done, encoded = cv2.imencode(".jpg", picture_rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done, path
    path.write_bytes(encoded.tobytes())
