"""One keyframe as the detectors see it: six cameras, calibration, ego motion and, where known, annotations.

Transforms are 4×4 float64 matrices named ``a_from_b``: they take homogeneous points of frame b to frame a, so that
``a_from_b @ b_from_c`` reads itself. Frames: ``global`` (nuScenes map), ``ego`` (rear axle), ``lidar`` (LIDAR_TOP at
the keyframe; x right, y forward, z up), ``camera`` (optical: x right, y down, z forward), ``image`` (pixels).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.boxes import Boxes

CAMERAS: tuple[str, ...] = (
    "CAM_FRONT",
    "CAM_FRONT_RIGHT",
    "CAM_FRONT_LEFT",
    "CAM_BACK",
    "CAM_BACK_LEFT",
    "CAM_BACK_RIGHT",
)
"""BEVFormer's camera order; its camera embeddings belong to it."""

CAN_BUS_LENGTH = 18
"""0:3 position, 3:7 the quaternion's w four times, 7:10 acceleration, 10:13 rotation rate, 13:16 velocity, 16 yaw in
radians, 17 yaw in degrees. ``scenes/can_bus.py`` says why the published weights want exactly that."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One keyframe: everything but the pixels.

    Attributes:
        scene_name: e.g. ``scene-0061``.
        scene_token, sample_token: nuScenes tokens.
        step: 0-based position in the scene, in time order.
        timestamp_us: the sample's timestamp in microseconds.
        camera_paths: six paths relative to the data root, in ``CAMERAS`` order.
        camera_size_wh: (6, 2) int64, width and height in pixels as the tables state them.
        intrinsics: (6, 3, 3) float64.
        lidar_from_camera: (6, 4, 4) float64, motion-compensated: camera at its own time to LiDAR at the keyframe.
        global_from_lidar: (4, 4) float64 at the keyframe.
        global_from_ego: (4, 4) float64 at the keyframe (the LiDAR's ego pose).
        can_bus: (18,) float64, absolute values.
        has_can_bus: False when the scene has no CAN messages and the published zero fill was used.
        boxes: annotations in the LiDAR frame, unfiltered by range; None for an unlabelled split.
        lidar_path: path relative to the data root.
    """

    scene_name: str
    scene_token: str
    sample_token: str
    step: int
    timestamp_us: int
    camera_paths: tuple[str, ...]
    camera_size_wh: NDArray[np.int64]
    intrinsics: NDArray[np.float64]
    lidar_from_camera: NDArray[np.float64]
    global_from_lidar: NDArray[np.float64]
    global_from_ego: NDArray[np.float64]
    can_bus: NDArray[np.float64]
    has_can_bus: bool
    boxes: Boxes | None
    lidar_path: str

    @property
    def image_from_lidar(self) -> NDArray[np.float64]:
        """(6, 4, 4) float64: the published ``lidar2img`` at the original image size.

        A point maps to ``(u·depth, v·depth, depth, 1)`` with u, v in pixels and depth in metres.
        """
        image_from_camera = np.tile(np.eye(4), (len(self.intrinsics), 1, 1))
        image_from_camera[:, :3, :3] = self.intrinsics
        return image_from_camera @ np.linalg.inv(self.lidar_from_camera)


@dataclass(frozen=True, eq=False)
class CameraInputs:
    """A frame with its pixels, ready for a detector.

    Attributes:
        frame: the keyframe.
        images: (6, 3, H, W) float32, preprocessed and padded.
        image_from_lidar: (6, 4, 4) float64 in the resized image's pixels.
    """

    frame: Frame
    images: NDArray[np.float32]
    image_from_lidar: NDArray[np.float64]
