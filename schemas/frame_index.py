"""Rows of ``frames.parquet``: which frames a cache holds, in which order, and how the car moved between them."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.frames import Frame

FRAME_SCHEMA = pa.schema(
    [
        pa.field("scene_name", pa.string(), nullable=False),
        pa.field("scene_token", pa.string(), nullable=False),
        pa.field("sample_token", pa.string(), nullable=False),
        pa.field("step", pa.int32(), nullable=False),
        pa.field("timestamp_us", pa.int64(), nullable=False),
        pa.field("global_from_lidar", pa.list_(pa.float64(), 16), nullable=False),
        pa.field("previous_from_current", pa.list_(pa.float64(), 16), nullable=False),
        pa.field("has_previous", pa.bool_(), nullable=False),
        pa.field("has_images", pa.bool_(), nullable=False),
        pa.field("has_labels", pa.bool_(), nullable=False),
    ]
)
"""One row per frame; matrices are row-major. ``previous_from_current`` takes points of this frame's LiDAR frame to the
previous frame's, and is the identity where ``has_previous`` is False."""


def frame_table(frames: Sequence[Frame]) -> pa.Table:
    """Index rows of one scene's frames.

    Args:
        frames: all of one scene, in time order, starting at step 0.

    Returns:
        A table in ``FRAME_SCHEMA``.
    """
    rows = []
    for number, frame in enumerate(frames):
        assert frame.step == number, f"{frame.scene_name}: expected step {number}, got {frame.step}"
        previous_from_current = np.eye(4)
        if number > 0:
            previous_from_current = lidar_motion(frames[number - 1], frame)
        rows.append(
            {
                "scene_name": frame.scene_name,
                "scene_token": frame.scene_token,
                "sample_token": frame.sample_token,
                "step": frame.step,
                "timestamp_us": frame.timestamp_us,
                "global_from_lidar": frame.global_from_lidar.ravel().tolist(),
                "previous_from_current": previous_from_current.ravel().tolist(),
                "has_previous": number > 0,
                "has_images": True,
                "has_labels": frame.boxes is not None,
            }
        )
    return pa.Table.from_pylist(rows, schema=FRAME_SCHEMA)


def lidar_motion(previous: Frame, current: Frame) -> NDArray[np.float64]:
    """``previous_from_current`` of two frames, (4, 4).

    Products and sums are spelled out, because a BLAS rounds them as its processor likes.
    """
    before, now = previous.global_from_lidar, current.global_from_lidar
    motion = np.eye(4)
    lidar_from_global = before[:3, :3].T
    motion[:3, :3] = sum(lidar_from_global[:, axis, None] * now[None, axis, :3] for axis in range(3))
    motion[:3, 3] = sum(lidar_from_global[:, axis] * (now[axis, 3] - before[axis, 3]) for axis in range(3))
    return motion
