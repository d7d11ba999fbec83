"""Clips read on one core from one store: our reader against zarr-python, zarrs and tensorstore.

    python -m benchmarks.one_core

The whole process is pinned to one processor. Clips of four Base-sized BEV maps (int8) go into one buffer that is used
again and again; tensorstore returns fresh memory, as its call does. Who verifies what:

- verified: all read our store, whose chunks carry their crc32c. Our reader, zarr-python and tensorstore check each
  frame. zarrs never checks a single frame's checksum, so google-crc32c checks its frames against the receipt, as
  docs/format.md advises.
- not verified: our reader with checking off; the peers read the same frames from a store without chunk checksums.

The goals are for warm pages: cold, everybody waits for the disk.

Prints a Markdown table; figures are ms a frame.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from benchmarks.base_frames import BASE_CELLS, base_specs, random_clips, slots_of, write_base_cache
from benchmarks.machine import command_line, drop_page_cache, is_installed, pin, scratch
from benchmarks.peers import scene_of, write_zarr
from benchmarks.report import Comparison, Goal, missing_peer, print_comparisons
from benchmarks.rounds import Contender, nothing, ratio, spread, time_rounds
from cache.reading import open_cache
from cache.shard_file import ShardFile
from cache.writing import SceneSlot
from schemas.features import frame_bytes
from train.clip_reading import read_clip
from train.clips import Clip

CLIP_FRAMES = 4
GOALS = {"zarr-python": Goal(2.5), "zarrs": Goal(1.4), "tensorstore": Goal(5)}
MODULES = {"zarr-python": "zarr", "zarrs": "zarrs", "tensorstore": "tensorstore"}
Read = Callable[[int, int], Any]
"""Reads the clip of a scene index that begins at a step; returns its frames."""


def zarr_reader(path: Path, into: NDArray[np.int8], pipeline: str | None = None) -> Read:
    """zarr-python, with its own codec pipeline or another one."""
    import zarr  # noqa: PLC0415
    from zarr.core.buffer.cpu import NDBuffer  # noqa: PLC0415

    with zarr.config.set({"codec_pipeline.path": pipeline} if pipeline else {}):
        array = zarr.open_array(path, mode="r")
    out = NDBuffer(into)

    def read(scene: int, first: int) -> NDArray[np.int8]:
        array.get_basic_selection((scene, slice(first, first + len(into))), out=out)
        return into

    return read


def tensorstore_reader(path: Path, frames: int) -> Read:
    """tensorstore, without its own cache."""
    import tensorstore  # noqa: PLC0415

    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    store = tensorstore.open(spec, read=True).result()
    return lambda scene, first: store[scene, first : first + frames].read().result()


def our_reader(shards: Sequence[ShardFile], into: NDArray[np.int8], *, verify: bool) -> Read:
    """The reader of our stream, without its threads."""

    def read(scene: int, first: int) -> NDArray[np.int8]:
        read_clip(shards[scene], first, into, verify=verify)
        return into

    return read


def checked(read: Read, shards: Sequence[ShardFile]) -> Read:
    """Compare each frame with the receipt's checksum."""

    def read_and_check(scene: int, first: int) -> Any:
        frames = read(scene, first)
        for row, expected in zip(frames, shards[scene].crc32c[first:], strict=False):
            assert google_crc32c.value(row.reshape(-1).view(np.uint8)) == expected
        return frames

    return read_and_check


def readers(folder: Path, shards: Sequence[ShardFile], into: NDArray[np.int8], *, verified: bool) -> dict[str, Read]:
    """Ours, and every peer that is here."""
    store = folder / ("cache" if verified else "bare") / "bev"
    found: dict[str, Read] = {"ours": our_reader(shards, into, verify=verified)}
    found["zarr-python"] = zarr_reader(store, into)
    if is_installed("zarrs"):
        import zarrs  # noqa: F401, PLC0415  registers its pipeline

        unchecked = zarr_reader(store, into, "zarrs.ZarrsCodecPipeline")
        found["zarrs"] = checked(unchecked, shards) if verified else unchecked
    if is_installed("tensorstore"):
        found["tensorstore"] = tensorstore_reader(store, len(into))
    return found


def read_all(read: Read, clips: Callable[[int], Sequence[Clip]], number: int) -> None:
    """One round."""
    for clip in clips(number):
        read(int(clip.scene_name.removeprefix("scene-")), clip.steps[0])


def agree(found: Mapping[str, Read]) -> None:
    """Whether all of them read the same, once."""
    expected = np.array(found["ours"](0, 1))
    for name, read in found.items():
        assert np.array_equal(np.asarray(read(0, 1)), expected), name


def compare(folder: Path, slots: Sequence[SceneSlot], rounds: int) -> list[Comparison | tuple[str, ...]]:
    """All rows."""
    cache = open_cache(folder / "cache")
    shards = [cache.shard(slot.name, "bev") for slot in slots]
    into = np.zeros((CLIP_FRAMES, *cache.arrays["bev"].shape), dtype=np.int8)
    clips = partial(random_clips, slots, CLIP_FRAMES)
    frames = CLIP_FRAMES * len(clips(0))
    rows: list[Comparison | tuple[str, ...]] = []
    for verified in (True, False):
        found = readers(folder, shards, into, verified=verified)
        agree(found)
        contenders: dict[str, Contender] = {name: partial(read_all, read, clips) for name, read in found.items()}
        for temperature in ("warm", "cold"):
            prepare = partial(drop_page_cache, folder) if temperature == "cold" else nothing
            seconds = time_rounds(contenders, rounds, prepare)
            per_frame = {name: spread(values).scaled(1000 / frames) for name, values in seconds.items()}
            setting = f"{temperature}, {'verified' if verified else 'not verified'}"
            rows += [
                Comparison(
                    name,
                    setting,
                    per_frame["ours"],
                    per_frame[name],
                    ratio(seconds[name], seconds["ours"]),
                    GOALS[name] if temperature == "warm" else None,
                )
                for name in found
                if name != "ours"
            ]
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = command_line(__doc__, rounds=9)
    parser.add_argument("--scenes", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20, help="keyframes in a scene")
    parser.add_argument("--cells", type=int, default=BASE_CELLS, help="rows and columns of the BEV grid")
    chosen = parser.parse_args(arguments)
    specs, slots = base_specs(chosen.cells, ("bev",)), slots_of(chosen.scenes, chosen.steps)
    pin(1)  # before any library starts its threads: they inherit it
    with scratch(chosen.folder, 2.2 * frame_bytes(specs, "int8") * chosen.scenes * chosen.steps / 1e9) as folder:
        write_base_cache(folder / "cache", specs, slots, chosen.cells)
        cache = open_cache(folder / "cache")
        write_zarr(
            folder / "bare",
            [scene_of(slot, {"bev": cache.shard(slot.name, "bev")}) for slot in slots],
            checksums=False,
        )
        rows = compare(folder, slots, chosen.rounds)
    rows += [missing_peer(name) for name, module in MODULES.items() if not is_installed(module)]
    print_comparisons(rows)


if __name__ == "__main__":
    main()
