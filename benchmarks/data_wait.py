"""How long a training step waits for its data when the step is as short as on a GPU.

    python -m benchmarks.data_wait
    python -m benchmarks.data_wait --cores 16 --decode-threads 12 --device cuda

The step is a stub that sleeps for 50 ms: like a step on a GPU, it leaves the processors to the threads that prepare the
next batches. All else is the training loop's own: ``BatchStream`` over ``TeacherStream`` with the shipped look-ahead
and threads, one clip a batch, BEV maps of Base's size (200×200×256 int8 with scales and offsets, each checked against
its crc32c), a window of as many frames as distillers ask for (1 for most, 2 for relations over time, 4 for fusion).

With decoding, the step's six images of 1600×900 are decoded from JPEG and brought to BEVFormer-Tiny's 480×800; without,
a decoded frame is at hand, and is still put into the batch. Cold: the pages of cache and images are dropped before each
round. The share is waiting / (waiting + step); a round's first steps, which nothing was prepared for, do not count.
Where decoding alone takes a core longer than all cores have in a step, no loop can keep up; the last column says so.
Prints a Markdown table.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import cycle
from pathlib import Path

import torch

from benchmarks.base_frames import BASE_CELLS, base_specs, random_clips, slots_of, write_base_cache
from benchmarks.machine import command_line, drop_page_cache, pin, scratch
from benchmarks.report import Goal, print_table
from benchmarks.rounds import figures_of_rounds, nothing, spread
from benchmarks.small_stage import small_world
from cache.reading import open_cache
from cache.writing import SceneSlot
from detectors.catalogue import bevformer_tiny
from pipeline.recipes import load_recipe
from scenes.images import load_inputs
from scenes.scene_tables import SceneTables
from schemas.features import frame_bytes
from schemas.frames import CameraInputs
from train.batches import BatchStream
from train.clips import Clip, ClipPosition, PlannedBatch
from train.stream import StreamOptions, TargetWindow, TeacherStream

GOAL = Goal(0.1, at_most=True)
STEP_S = 0.05
WINDOWS = (1, 2, 4)
IMAGE_FRAMES = 8
"""Frames of images, decoded again and again."""

COLUMNS = ("frames of targets", "MB a step", "images", "pages", "waiting, ms", "share of the step", "goal", "")
DECODED = "decoded"
FrameLoader = Callable[[str, str], CameraInputs]


class Loop:
    """The data side of the training loop over a cache of Base's size.

    Args:
        folder: holds ``cache``.
        slots: its scenes.
        options: look-ahead and threads.
        device: where batches go.
    """

    def __init__(self, folder: Path, slots: Sequence[SceneSlot], options: StreamOptions, device: torch.device) -> None:
        self._cache, self._slots = open_cache(folder / "cache"), slots
        self._options, self._device = options, device

    def waited_s(self, frames: int, load_frame: FrameLoader, steps: int, number: int) -> float:
        """Mean wait of a step.

        Args:
            frames: keyframes of targets a step.
            load_frame: gives the student's images.
            steps: that count.
            number: of the round, which draws the clips.
        """
        uncounted = self._options.look_ahead
        waited: list[float] = []
        window = TargetWindow(("bev",), frames, batch_size=1)
        with ExitStack() as opened:
            teacher = opened.enter_context(TeacherStream(self._cache, window, self._options, self._device))
            grid = bevformer_tiny().grid
            planned = self._planned(frames, number)
            stream = BatchStream(planned, load_frame, teacher, grid, self._options, self._device)
            batches = opened.enter_context(stream)
            for _ in range(uncounted + steps):
                asked = time.perf_counter()
                next(batches)
                waited.append(time.perf_counter() - asked)
                time.sleep(STEP_S)
        return sum(waited[uncounted:]) / steps

    def clips(self, frames: int, number: int) -> list[Clip]:
        """The windows of a round, none of which share a frame."""
        return random_clips(self._slots, frames, number)

    def _planned(self, frames: int, number: int) -> Iterator[PlannedBatch]:
        for clip in cycle(self.clips(frames, number)):
            yield PlannedBatch((clip.without_history(),), ClipPosition())


class Images:
    """The student's frames: decoded anew every time, or one that is at hand.

    Attributes:
        decode_s: seconds of a core that a frame takes.
    """

    def __init__(self, tables: SceneTables) -> None:
        self._root, self._preprocessing = tables.data_root, bevformer_tiny().preprocessing
        (name,) = tables.scene_names("train")
        self._frames = tables.frames(name)
        self._at_hand = self.decoded("-0", "")
        begin = time.thread_time()
        for step in range(len(self._frames)):
            self.decoded(f"-{step}", "")
        self.decode_s = (time.thread_time() - begin) / len(self._frames)

    def decoded(self, sample_token: str, _: str) -> CameraInputs:
        """Decode the frame that stands for this sample."""
        step = int(sample_token.rpartition("-")[2])
        return load_inputs(self._frames[step % len(self._frames)], self._root, self._preprocessing)

    def at_hand(self, _: str, __: str) -> CameraInputs:
        """A frame decoded before."""
        return self._at_hand


def rows_of(loop: Loop, images: Images, folder: Path, chosen: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """The rows of the table."""
    mb = frame_bytes(base_specs(chosen.cells, ("bev",)), "int8") / 1e6
    budget_ms = 1000 * chosen.cores * STEP_S
    loaders = {"at hand": images.at_hand, DECODED: images.decoded}
    for pages in ("warm", "cold"):
        prepare = partial(drop_page_cache, folder) if pages == "cold" else nothing
        contenders = {
            f"{frames}, {told}": partial(_round, loop, frames, load_frame, chosen.timed)
            for told, load_frame in loaders.items()
            for frames in WINDOWS
        }
        if pages == "warm":
            for contender in contenders.values():
                contender(0)
        for name, waited_s in figures_of_rounds(contenders, chosen.rounds, prepare).items():
            frames, _, told = name.partition(", ")
            shares = spread([seconds / (seconds + STEP_S) for seconds in waited_s])
            verdict = GOAL.verdict(shares.median)
            if told == DECODED:
                verdict += (
                    f"; decoding takes a core {1000 * images.decode_s:.0f} ms, {chosen.cores} have {budget_ms:.0f}"
                )
            size = f"{int(frames) * mb:.1f}"
            yield frames, size, told, pages, str(spread(waited_s).scaled(1000)), str(shares), str(GOAL), verdict


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    shipped = StreamOptions()
    parser = command_line(__doc__, rounds=5)
    parser.add_argument("--cores", type=int, default=2, help="processors that all of it runs on")
    parser.add_argument("--decode-threads", type=int, default=shipped.decode_threads)
    parser.add_argument("--read-threads", type=int, default=shipped.read_threads)
    parser.add_argument("--look-ahead", type=int, default=shipped.look_ahead)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20, help="keyframes in a scene")
    parser.add_argument("--cells", type=int, default=BASE_CELLS, help="rows and columns of the BEV grid")
    parser.add_argument("--timed", type=int, default=16, help="steps of each round that count")
    chosen = parser.parse_args(arguments)
    pin(chosen.cores)
    torch.set_num_threads(1)
    specs, slots = base_specs(chosen.cells, ("bev",)), slots_of(chosen.scenes, chosen.steps)
    options = StreamOptions(
        look_ahead=chosen.look_ahead, read_threads=chosen.read_threads, decode_threads=chosen.decode_threads
    )
    needed_gb = 1.1 * frame_bytes(specs, "int8") * chosen.scenes * chosen.steps / 1e9 + 0.1
    with scratch(chosen.folder, needed_gb) as folder:
        write_base_cache(folder / "cache", specs, slots, chosen.cells)
        images = Images(small_world(folder / "world", load_recipe("bevformer-base"), 1, IMAGE_FRAMES))
        loop = Loop(folder, slots, options, torch.device(chosen.device))
        print_table(COLUMNS, list(rows_of(loop, images, folder, chosen)))


def _round(loop: Loop, frames: int, load_frame: FrameLoader, steps: int, number: int) -> float:
    return loop.waited_s(frames, load_frame, steps, number)


if __name__ == "__main__":
    main()
