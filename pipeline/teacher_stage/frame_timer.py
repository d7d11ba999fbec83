"""How long a teacher takes for a frame on this device."""

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from cache.shard_bytes import encode_payload
from pipeline.teacher_stage.live_frames import LiveScene
from pipeline.teacher_stage.quantise import StoredFrame
from pipeline.teacher_stage.teacher import Teacher
from schemas.features import FeatureSpec, Tier
from schemas.frames import CameraInputs


@dataclass(frozen=True)
class FrameTime:
    """What was measured.

    Attributes:
        seconds: of the forward pass and the quantisation, the median.
        frames: how many were timed, after one that was not.
        archive_share: what zstd leaves of the last frame's quantised values.
    """

    seconds: float
    frames: int
    archive_share: float


def time_teacher(
    teacher: Teacher, specs: Sequence[FeatureSpec], tier: Tier, inputs: Iterable[CameraInputs], device: torch.device
) -> FrameTime:
    """Run a teacher over consecutive frames of a scene; the first that is complete warms up and is not counted.

    Args:
        teacher: on ``device``.
        specs: the features to keep.
        tier: storage tier.
        inputs: at least two frames, and those that a frame waits for (``frames_ahead``).
        device: where the teacher computes.
    """
    seconds: list[float] = []
    scene, stored = LiveScene(teacher, specs, tier, device), None
    for each in inputs:
        begun = time.perf_counter()
        completed = scene.add(each)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if completed:
            seconds.append(time.perf_counter() - begun)
            stored = completed[-1].stored
    assert stored is not None
    assert len(seconds) > 1
    return FrameTime(statistics.median(seconds[1:]), len(seconds) - 1, _archive_share(stored))


def _archive_share(frame: StoredFrame) -> float:
    """Compressed over raw bytes of all quantised arrays; 1 where there are none."""
    arrays = [tensor.cpu().numpy() for tensor in frame.arrays.values() if tensor.dtype in (torch.int8, torch.uint8)]
    compressed = sum(encode_payload(values, compressed=True).nbytes for values in arrays)
    return compressed / sum(values.nbytes for values in arrays) if arrays else 1.0
