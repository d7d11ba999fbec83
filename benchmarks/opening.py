"""Opening the cache of all of nuScenes and reading one frame, against loading the nuScenes tables.

    python -m benchmarks.opening

The cache has 850 scenes and 34,149 frames, as nuScenes' labelled splits together; its frames are tiny, so that only the
index is of full size. Its first scenes are written by the writer; the receipts of the others, which differ in names
only, directly, and the frame index is then made from the receipts as after any copy of a cache.

The tables are those of a synthetic world, which has fewer rows a frame than nuScenes (keyframes only, no sweeps). They
are loaded by nuscenes-devkit, as training code does that asks it for its frames, and from our own index of them; both
times are scaled to 34,149 frames.

Each opening is timed in a fresh interpreter, imports included: cold (pages of its files dropped) and warm; then a
second time in the same process. Prints a Markdown table; figures are ms.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.machine import command_line, drop_page_cache, scratch
from benchmarks.report import print_table
from benchmarks.rounds import spread

FULL_SCENES, FULL_FRAMES = 850, 34_149
CELLS = 4
WRITTEN_SCENES = 2


def open_and_read(path: Path) -> None:
    """Our cache: open it, and read one frame of the last scene that has data."""
    from cache import open_cache  # noqa: PLC0415

    cache = open_cache(path)
    token = cache.frames["sample_token"][WRITTEN_SCENES * 40 - 1].as_py()
    cache.read(token, "bev")


def load_devkit(path: Path) -> None:
    """The data set's own loader."""
    from nuscenes.nuscenes import NuScenes  # noqa: PLC0415

    NuScenes(version="v1.0-trainval", dataroot=str(path), verbose=False)


def load_index(path: Path) -> None:
    """Our index of the tables, which is there already."""
    from scenes.tables import load_tables  # noqa: PLC0415

    load_tables(path, "v1.0-trainval", path.parent / "index")


OPENERS: dict[str, Callable[[Path], None]] = {
    "the cache, and one frame": open_and_read,
    "the tables, by nuscenes-devkit": load_devkit,
    "the tables, by our index of them": load_index,
}


def time_twice(name: str, path: Path) -> tuple[float, float]:
    """Seconds of the first and of the second opening in this process, which has imported nothing yet."""
    times = []
    for _ in range(2):
        begin = time.perf_counter()
        OPENERS[name](path)
        times.append(time.perf_counter() - begin)
    return times[0], times[1]


def in_fresh_process(name: str, path: Path) -> tuple[float, float]:
    """The same in a fresh interpreter."""
    command = [sys.executable, "-m", "benchmarks.opening", "--opener", name, "--path", str(path)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    first, second = json.loads(finished.stdout.splitlines()[-1])
    return first, second


def write_full_index(path: Path, scenes: int, frames: int) -> None:
    """A cache with receipts for every scene, and files for the first ``WRITTEN_SCENES``."""
    from benchmarks.base_frames import base_manifest, base_specs, rows_of, stored_frames  # noqa: PLC0415
    from cache.group import read_group  # noqa: PLC0415
    from cache.layout import CacheLayout  # noqa: PLC0415
    from cache.receipts import Receipt, read_receipt, receipt_bytes  # noqa: PLC0415
    from cache.writing import SceneSlot, open_for_writing  # noqa: PLC0415

    short, extra = divmod(frames, scenes)
    lengths = [short] * (scenes - extra) + [short + 1] * extra
    slots = [SceneSlot(f"scene-{i:04d}", f"token-{i:04d}", length) for i, length in enumerate(lengths)]
    specs = base_specs(CELLS, ("bev",))
    writer = open_for_writing(path, base_manifest(specs, CELLS), slots)
    templates: dict[int, Receipt] = {}
    layout = CacheLayout(path)
    group = read_group(layout)
    for slot in slots:
        if slot.length not in templates or slot in slots[:WRITTEN_SCENES]:
            with writer.scene(slot.name) as scene:
                for frame in stored_frames(specs, slot.length):
                    scene.append_stored(frame)
                scene.commit(rows_of(slot))
            templates[slot.length] = read_receipt(layout, group, slot.name)
        else:
            receipt = Receipt(slot.name, rows_of(slot), templates[slot.length].shards)
            layout.receipt(slot.name).write_bytes(receipt_bytes(receipt, group))
    open_for_writing(path, base_manifest(specs, CELLS), slots)


def write_tables(path: Path, scenes: int) -> int:
    """A synthetic world and our index of it.

    Returns:
        Its number of frames.
    """
    from scenes.synthetic import WorldOptions, write_world  # noqa: PLC0415
    from scenes.tables import load_tables  # noqa: PLC0415

    sizes = {"image_width": 64, "image_height": 36}
    world = WorldOptions(train_scenes=scenes, tune_scenes=0, val_scenes=0, frames_per_scene=40, **sizes)
    write_world(world, path, workers=1, on_scene=lambda _: None)
    load_tables(path, "v1.0-trainval", path.parent / "index")
    return scenes * 40


def measure(name: str, path: Path, files: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds by temperature."""
    seconds: dict[str, list[float]] = {"cold": [], "warm": [], "again": []}
    in_fresh_process(name, path)
    for _ in range(rounds):
        drop_page_cache(files)
        seconds["cold"].append(in_fresh_process(name, path)[0])
        first, second = in_fresh_process(name, path)
        seconds["warm"].append(first)
        seconds["again"].append(second)
    return seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = command_line(__doc__, rounds=5)
    parser.add_argument("--scenes", type=int, default=FULL_SCENES, help="of the cache")
    parser.add_argument("--frames", type=int, default=FULL_FRAMES, help="of the cache")
    parser.add_argument("--table-scenes", type=int, default=20, help="of the synthetic world, 40 keyframes each")
    parser.add_argument("--opener", choices=OPENERS, help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.opener is not None:
        print(json.dumps(time_twice(chosen.opener, chosen.path)))
        return
    with scratch(chosen.folder, 1) as folder:
        write_full_index(folder / "cache", chosen.scenes, chosen.frames)
        table_frames = write_tables(folder / "world", chosen.table_scenes)
        rows = []
        for name, opener in OPENERS.items():
            of_cache = opener is open_and_read
            path = folder / ("cache" if of_cache else "world")
            seconds = measure(name, path, path if of_cache else folder, chosen.rounds)
            frames = chosen.frames if of_cache else table_frames
            ms = partial(_milliseconds, seconds)
            scaled = "" if of_cache else f"{ms('again', chosen.frames / frames)}"
            rows.append((name, str(frames), ms("cold"), ms("warm"), ms("again"), scaled))
    columns = ("what is opened", "frames", "cold", "warm", "again, same process", f"again, scaled to {chosen.frames:,}")
    print_table(columns, rows)


def _milliseconds(seconds: dict[str, list[float]], which: str, factor: float = 1.0) -> str:
    return str(spread(seconds[which]).scaled(1000 * factor))


if __name__ == "__main__":
    main()
