"""A frame that nobody recorded: black images and a rig like nuScenes', so that a teacher can be timed without data.

How long a network takes does not depend on what the pixels show. It does depend, for some, on which cells a camera
sees; six cameras at nuScenes' bearings with nuScenes' focal lengths see about as many as the real ones.
"""

import math

import numpy as np
from numpy.typing import NDArray

from schemas.frames import CAN_BUS_LENGTH, CameraInputs, Frame
from schemas.preprocessing import Preprocessing

_YAWS_DEG = (0.0, -55.0, 55.0, 180.0, 110.0, -110.0)  # counter-clockwise from straight ahead, in the order of CAMERAS
_FOCAL_WIDTHS = (0.79, 0.79, 0.79, 0.5, 0.79, 0.79)  # focal length in widths of the image
NUSCENES_SIZE_WH = (1600, 900)


def made_up_inputs(preprocessing: Preprocessing, size_wh: tuple[int, int], step: int) -> CameraInputs:
    """The network's input for a frame of a car that stands still.

    Args:
        preprocessing: of the teacher.
        size_wh: width and height of the recorded images in pixels.
        step: position in the made-up scene.
    """
    frame = _frame(size_wh, step)
    images = np.zeros((len(_YAWS_DEG), 3, *preprocessing.padded_hw(size_wh[1], size_wh[0])), dtype=np.float32)
    return CameraInputs(frame, images, preprocessing.scale_matrix() @ frame.image_from_lidar)


def _frame(size_wh: tuple[int, int], step: int) -> Frame:
    count, (width, height) = len(_YAWS_DEG), size_wh
    intrinsics = np.tile(np.eye(3), (count, 1, 1))
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = width * np.array(_FOCAL_WIDTHS)
    intrinsics[:, 0, 2], intrinsics[:, 1, 2] = width / 2, height / 2
    return Frame(
        scene_name="made-up",
        scene_token="made-up",  # noqa: S106  not a password
        sample_token=f"made-up-{step}",
        step=step,
        timestamp_us=step * 500_000,
        camera_paths=("",) * count,
        camera_size_wh=np.tile(np.array(size_wh, dtype=np.int64), (count, 1)),
        intrinsics=intrinsics,
        lidar_from_camera=np.stack([_lidar_from_camera(math.radians(yaw)) for yaw in _YAWS_DEG]),
        global_from_lidar=np.eye(4),
        global_from_ego=np.eye(4),
        can_bus=np.zeros(CAN_BUS_LENGTH),
        has_can_bus=False,
        boxes=None,
        lidar_path="",
    )


def _lidar_from_camera(yaw_rad: float) -> NDArray[np.float64]:
    """A camera that looks along ``yaw_rad`` from straight ahead, a third of a metre below the LiDAR."""
    ahead = np.array([-math.sin(yaw_rad), math.cos(yaw_rad), 0.0])
    right = np.array([math.cos(yaw_rad), math.sin(yaw_rad), 0.0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, [0.0, 0.0, -1.0], ahead], axis=1)
    pose[:3, 3] = 0.5 * ahead + [0.0, 0.0, -0.33]
    return pose
