"""The heart of the teacher stage: one scene, streamed through the teacher in time order.

frames (decode threads) ─▶ teacher.features(frame, previous) ─▶ quantise (device) ─▶ write queue ─▶ receipt
                           └──────── live_frames.py ────────┘
"""

from collections.abc import Callable
from concurrent.futures import Future

from pipeline.teacher_stage.job import CacheJob
from pipeline.teacher_stage.live_frames import LiveFrame, LiveScene, live_frames
from pipeline.teacher_stage.write_queue import WriteQueue
from scenes.frame_stream import stream_frames
from schemas.frame_index import frame_table


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
    manifest = job.manifest
    inputs_in_order = stream_frames(
        frames, job.tables.data_root, manifest.preprocessing, threads=job.options.decode_threads
    )
    live_scene = LiveScene(job.teacher, manifest.features, manifest.tier, job.device)
    with queue.scene(job.writer.scene(name)) as scene:
        for live in live_frames(live_scene, inputs_in_order):
            scene.append(live.stored)
            on_frame(live)
        return scene.commit(frame_table(frames))
