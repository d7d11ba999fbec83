"""3D boxes of one frame, in the convention the published BEVFormer weights were trained with.

LiDAR frame, seen from above            y (forward)
                                        ▲    heading of a box with angle θ = 0 points along +x
                                        │
                                        └───▶ x (right)

centre   gravity centre (x, y, z) in metres, LiDAR frame of the keyframe
size     (width, length, height) in metres; length runs along the heading
yaw_rad  = -θ - π/2, θ the counter-clockwise angle of the heading from +x, wrapped to [-π, π)
         (the mmdet3d 0.x convention; θ is nuScenes' own yaw, expressed in the LiDAR frame)
velocity (vx, vy) in m/s, LiDAR axes, relative to the ground
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CLASS_NAMES: tuple[str, ...] = (
    "car",
    "truck",
    "construction_vehicle",
    "bus",
    "trailer",
    "barrier",
    "motorcycle",
    "bicycle",
    "pedestrian",
    "traffic_cone",
)
"""Class order of BEVFormer's heads; a label is an index into it. It is not nuscenes-devkit's order."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of one frame: annotations, or detections when ``scores`` is given.

    Attributes:
        center_m: (N, 3) float64.
        size_wlh_m: (N, 3) float64.
        yaw_rad: (N,) float64.
        velocity_mps: (N, 2) float64; zero where ``has_velocity`` is False, as the published training does.
        has_velocity: (N,) bool; False where nuScenes cannot tell the velocity.
        labels: (N,) int64, indices into ``CLASS_NAMES``.
        scores: (N,) float64 in [0, 1] for detections, None for annotations.
    """

    center_m: NDArray[np.float64]
    size_wlh_m: NDArray[np.float64]
    yaw_rad: NDArray[np.float64]
    velocity_mps: NDArray[np.float64]
    has_velocity: NDArray[np.bool_]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        count = len(self.labels)
        expected = {
            "center_m": (count, 3),
            "size_wlh_m": (count, 3),
            "yaw_rad": (count,),
            "velocity_mps": (count, 2),
            "has_velocity": (count,),
            "labels": (count,),
        }
        for name, shape in expected.items():
            assert getattr(self, name).shape == shape, f"{name}: expected {shape}, got {getattr(self, name).shape}"
        assert self.scores is None or self.scores.shape == (count,)

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> "Boxes":
        """The boxes named by a mask or by indices, in that order."""
        return Boxes(
            center_m=self.center_m[chosen],
            size_wlh_m=self.size_wlh_m[chosen],
            yaw_rad=self.yaw_rad[chosen],
            velocity_mps=self.velocity_mps[chosen],
            has_velocity=self.has_velocity[chosen],
            labels=self.labels[chosen],
            scores=None if self.scores is None else self.scores[chosen],
        )


def empty_boxes(*, scored: bool = False) -> Boxes:
    """No boxes at all: zero rows, with scores when ``scored``."""
    return Boxes(
        center_m=np.zeros((0, 3)),
        size_wlh_m=np.zeros((0, 3)),
        yaw_rad=np.zeros(0),
        velocity_mps=np.zeros((0, 2)),
        has_velocity=np.zeros(0, dtype=np.bool_),
        labels=np.zeros(0, dtype=np.int64),
        scores=np.zeros(0) if scored else None,
    )


def box_corners_m(boxes: Boxes) -> NDArray[np.float64]:
    """Corners of each box in the LiDAR frame.

    Returns:
        (N, 8, 3) float64 metres. Corners 0-3 are the bottom, 4-7 the top, each in the order front-left, front-right,
        rear-right, rear-left as seen by the object, so the edge 0-1 is its front.
    """
    heading_rad = -boxes.yaw_rad - np.pi / 2
    width, length, height = boxes.size_wlh_m.T[:, :, None]
    along = np.array([1, 1, -1, -1, 1, 1, -1, -1]) * length / 2
    across = np.array([1, -1, -1, 1, 1, -1, -1, 1]) * width / 2
    up = np.array([-1, -1, -1, -1, 1, 1, 1, 1]) * height / 2
    cos, sin = np.cos(heading_rad)[:, None], np.sin(heading_rad)[:, None]
    offsets = np.stack([cos * along - sin * across, sin * along + cos * across, up], axis=-1)
    corners: NDArray[np.float64] = boxes.center_m[:, None, :] + offsets
    return corners
