"""Frames with their pixels, in order, decoded a little ahead of whoever consumes them."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from scenes.images import load_inputs
from schemas.frames import CameraInputs, Frame
from schemas.preprocessing import Preprocessing


def stream_frames(
    frames: Iterable[Frame], data_root: Path, preprocessing: Preprocessing, threads: int = 2, ahead: int = 4
) -> Iterator[CameraInputs]:
    """Decode frames in threads and yield them in their order.

    Args:
        frames: the keyframes.
        data_root: the nuScenes directory.
        preprocessing: of the detector that will see the images.
        threads: decoding threads.
        ahead: frames in preparation, or waiting in memory.

    Raises:
        DataError: an image is not what the tables say; frames before it have been yielded.
    """
    coming = iter(frames)
    pending: deque[Future[CameraInputs]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="frame-decoder")
    try:
        while True:
            while len(pending) < ahead and (frame := next(coming, None)) is not None:
                pending.append(pool.submit(load_inputs, frame, data_root, preprocessing))
            if not pending:
                return
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
