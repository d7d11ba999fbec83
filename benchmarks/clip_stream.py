"""Our clip stream against bare ``preadv``: how much of what memory and disk allow reaches a training loop.

    python -m benchmarks.clip_stream

Both fill a ring of preallocated buffers of the same shape with two threads, two clips ahead of a consumer that touches
one number of each. The other side keeps its files open and knows every offset in advance: one ``preadv`` for each array
and clip, then, where checksums are verified, google-crc32c over each frame's payload. Cold: the pages of all files are
dropped before each contender of each round. Prints a Markdown table; figures are ms a frame.
"""

import os
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.base_frames import BASE_CELLS, base_specs, random_clips, slots_of, write_base_cache
from benchmarks.machine import command_line, drop_page_cache, pin, scratch
from benchmarks.report import Comparison, Goal, print_comparisons
from benchmarks.ring_reader import RingReader
from benchmarks.rounds import Contender, nothing, ratio, spread, time_rounds
from cache.reading import Cache, open_cache
from cache.shard_file import ShardFile
from cache.writing import SceneSlot
from schemas.features import FeatureSpec, frame_bytes
from train.clips import Clip
from train.stream import StreamOptions, TargetWindow, TeacherStream

THREADS = 2
CLIP_FRAMES = 4
LOOK_AHEAD = 2
GOAL = Goal(0.9)


def stream_clips(stream: TeacherStream, clips: Sequence[Clip]) -> int:
    """Our side: one clip a batch, ``LOOK_AHEAD`` of them ahead. Returns what it touched, so that it did."""
    pending = deque(stream.start([clip]) for clip in clips[:LOOK_AHEAD])
    touched = 0
    for following in [*clips[LOOK_AHEAD:], *[None] * LOOK_AHEAD]:
        if not pending:
            break
        targets = stream.collect(pending.popleft())
        touched += int(targets.stored["bev"].view(-1)[0])
        if following is not None:
            pending.append(stream.start([following]))
    return touched


class BareFiles:
    """The limit: open files, known offsets."""

    def __init__(self, cache: Cache, specs: Sequence[FeatureSpec], *, verify: bool) -> None:
        names = [array.name for spec in specs for array in spec.stored("int8")]
        self._shards = {(scene, name): cache.shard(scene, name) for scene in cache.scene_names for name in names}
        self._files = {key: os.open(Path(str(shard.path)), os.O_RDONLY) for key, shard in self._shards.items()}
        self._verify = verify

    def close(self) -> None:
        """Close the files."""
        for descriptor in self._files.values():
            os.close(descriptor)

    def fill(self, clip: Clip, into: Mapping[str, NDArray[Any]]) -> None:
        """Read a clip, array by array."""
        for name, frames in into.items():
            key = (clip.scene_name, name)
            rows = frames.reshape(len(frames), -1).view(np.uint8)
            read_bare(self._files[key], self._shards[key], clip.steps[0], rows, verify=self._verify)


def read_bare(descriptor: int, shard: ShardFile, first: int, rows: NDArray[np.uint8], *, verify: bool) -> None:
    """One ``preadv`` of a clip, the four checksum bytes between frames going to spare bytes."""
    spare = np.empty((len(rows), 4), dtype=np.uint8)
    buffers = [part for row, gap in zip(rows, spare, strict=True) for part in (row, gap)]
    count = os.preadv(descriptor, buffers, int(shard.offsets[first]))
    assert count == rows.nbytes + spare.nbytes
    if verify:
        for row, expected in zip(rows, shard.crc32c[first : first + len(rows)], strict=True):
            assert google_crc32c.value(row) == expected


def compare(folder: Path, slots: Sequence[SceneSlot], features: tuple[str, ...], rounds: int) -> list[Comparison]:
    """Rows for one choice of features: verified or not, warm and cold."""
    cache = open_cache(folder)
    specs = [spec for spec in cache.manifest.features if spec.name in features]
    arrays = [array for spec in specs for array in spec.stored("int8")]
    what = f"{'all features' if len(features) > 1 else features[0]} ({frame_bytes(specs, 'int8') / 1e6:.1f} MB)"
    frames = CLIP_FRAMES * len(random_clips(slots, CLIP_FRAMES, seed=0))
    rows = []
    for verify in (True, False):
        options = StreamOptions(look_ahead=LOOK_AHEAD, read_threads=THREADS, verify_checksums=verify)
        files = BareFiles(cache, specs, verify=verify)
        bare = RingReader(arrays, CLIP_FRAMES, THREADS, LOOK_AHEAD, files.fill)
        with TeacherStream(cache, TargetWindow(features, CLIP_FRAMES, 1), options, torch.device("cpu")) as stream:
            contenders: dict[str, Contender] = {
                "ours": lambda number, s=stream: stream_clips(s, random_clips(slots, CLIP_FRAMES, number)),  # type: ignore[misc]
                "bare": lambda number, b=bare: b.read(random_clips(slots, CLIP_FRAMES, number)),  # type: ignore[misc]
            }
            for temperature in ("warm", "cold"):
                prepare = partial(drop_page_cache, folder) if temperature == "cold" else nothing
                seconds = time_rounds(contenders, rounds, prepare)
                ours, theirs = (spread(seconds[name]).scaled(1000 / frames) for name in ("ours", "bare"))
                setting = f"{temperature}, {'verified' if verify else 'not verified'}"
                gained = ratio(seconds["bare"], seconds["ours"])
                rows.append(Comparison(f"`preadv`, {what}", setting, ours, theirs, gained, GOAL))
        bare.close()
        files.close()
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = command_line(__doc__, rounds=9)
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20, help="keyframes in a scene")
    parser.add_argument("--cells", type=int, default=BASE_CELLS, help="rows and columns of the BEV grid")
    chosen = parser.parse_args(arguments)
    specs, slots = base_specs(chosen.cells), slots_of(chosen.scenes, chosen.steps)
    pin(THREADS)
    with scratch(chosen.folder, 1.1 * frame_bytes(specs, "int8") * chosen.scenes * chosen.steps / 1e9) as folder:
        write_base_cache(folder / "cache", specs, slots, chosen.cells)
        rows = []
        for features in (("bev",), tuple(spec.name for spec in specs)):
            rows += compare(folder / "cache", slots, features, chosen.rounds)
    print_comparisons(rows)


if __name__ == "__main__":
    main()
