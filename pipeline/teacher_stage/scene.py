"""The heart of the teacher stage: one scene, streamed through the teacher in time order.

frames (decode threads) ─▶ teacher.features(frame, previous) ─▶ quantise (device) ─▶ write queue ─▶ receipt
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.teacher_stage.job import CacheJob
from pipeline.teacher_stage.quantise import StoredFrame, quantise
from pipeline.teacher_stage.write_queue import WriteQueue
from scenes.frame_stream import stream_frames
from schemas.errors import UserError
from schemas.frame_index import frame_table
from schemas.frames import Frame
from train.learner import autocast


@dataclass(frozen=True, eq=False)
class LiveFrame:
    """A frame just computed.

    Attributes:
        frame: which.
        features: the teacher's floats by name, on its device.
        stored: the same as the cache will hold them.
    """

    frame: Frame
    features: Mapping[str, Tensor]
    stored: StoredFrame


def cache_scene(job: CacheJob, name: str, queue: WriteQueue, on_frame: Callable[[LiveFrame], None]) -> Future[bool]:
    """Stream one scene through the teacher and queue its commit.

    Args:
        job: teacher, frames and open cache.
        name: the scene.
        queue: of this process.
        on_frame: called with every frame when it has been computed.

    Returns:
        Done when the scene would survive a power cut: True, or False when another writer was first. It raises
        ``CacheError`` where the last frames were not fit to be stored or the disk refused them.

    Raises:
        DataError: a frame cannot be read.
        CacheError: a feature is not what the teacher's specs promise, or not fit to be stored; or the disk refuses.
    """
    frames = job.tables.frames(name)
    network, specs = job.teacher.network, job.manifest.features
    previous = None
    inputs_in_order = stream_frames(
        frames, job.tables.data_root, job.manifest.preprocessing, threads=job.options.decode_threads
    )
    with queue.scene(job.writer.scene(name)) as scene:
        for inputs in inputs_in_order:
            with torch.inference_mode():
                with autocast(job.device, job.teacher.precision):
                    features, previous = network.features(inputs, previous)
                try:
                    stored = quantise(specs, features, job.manifest.tier)
                except UserError as error:
                    raise type(error)(f"scene {name}, step {inputs.frame.step}: {error}") from error
            scene.append(stored)
            on_frame(LiveFrame(inputs.frame, features, stored))
        return scene.commit(frame_table(frames))
