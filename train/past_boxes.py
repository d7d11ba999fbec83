"""Where the annotated objects of earlier frames were, told in the LiDAR frame of a later one."""

from collections.abc import Sequence

import numpy as np

from scenes.box_frames import to_global, to_lidar
from schemas.boxes import Boxes
from schemas.frames import Frame


def past_boxes(frames: Sequence[Frame]) -> tuple[Boxes, ...]:
    """Annotations of all frames but the last, each as it was at its time, as seen from the last; nearest first.

    Args:
        frames: of one scene, in time order. Earlier frames without annotations give no boxes.
    """
    lidar_from_global = np.linalg.inv(frames[-1].global_from_lidar)
    return tuple(
        to_lidar(to_global(frame.boxes, frame.global_from_lidar), lidar_from_global)
        for frame in reversed(frames[:-1])
        if frame.boxes is not None
    )
