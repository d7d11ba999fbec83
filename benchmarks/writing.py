"""A scene written so that it survives a power cut: our writer against zarr-python.

    python -m benchmarks.writing

A scene of Base-sized BEV maps (int8, with scales and offsets). Ours: append every frame, commit (checksums, fsync,
renames, receipt, frame index). zarr-python: the same arrays, one shard a scene, uncompressed, without chunk checksums
unless said;
written as a whole (from a scene that is in one piece of memory already), or frame by frame (which rewrites the shard
each time). It calls no fsync by itself, so its files are fsynced when it is done. "From floats" adds our quantisation
on the processor to both sides. Prints Markdown tables: frames/s, then the bytes that each hands to the kernel.
"""

import itertools
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.base_frames import (
    BASE_CELLS,
    StoredFrame,
    base_manifest,
    base_specs,
    rows_of,
    slots_of,
    stored_frames,
)
from benchmarks.machine import command_line, fsync_tree, scratch
from benchmarks.report import Comparison, Goal, print_comparisons, print_table
from benchmarks.rounds import Contender, ratio, spread, time_rounds
from cache.durable_files import start_writeback
from cache.quantise import encode
from cache.writing import SceneSlot, open_for_writing
from schemas.features import FeatureSpec, frame_bytes

WHOLE, FRAMEWISE = "zarr-python, whole shard", "zarr-python, frame by frame"
CHECKED = "zarr-python, whole shard, with checksums as ours"
PLAIN = "the disk: the same bytes into one plain file"
GOALS = {WHOLE: Goal(8), CHECKED: Goal(8), FRAMEWISE: Goal(25), PLAIN: None}


class Scenes:
    """Writes one scene after the other, each into a fresh folder that is removed before the next.

    Args:
        folder: for all of them.
        specs: the features.
        slot: the scene.
        cells: rows and columns of the grid.
    """

    def __init__(self, folder: Path, specs: tuple[FeatureSpec, ...], slot: SceneSlot, cells: int) -> None:
        self.folder, self.specs, self.slot, self.cells = folder, specs, slot, cells
        self._numbers = itertools.count()

    def clear(self) -> None:
        """Remove what was written."""
        for path in self.folder.iterdir():
            shutil.rmtree(path)

    def ours(self, frames: Sequence[StoredFrame] | Sequence[Mapping[str, NDArray[Any]]], *, stored: bool) -> None:
        """Append and commit."""
        writer = open_for_writing(self._fresh(), base_manifest(self.specs, self.cells), [self.slot])
        with writer.scene(self.slot.name) as scene:
            for frame in frames:
                if stored:
                    scene.append_stored(frame)
                else:
                    scene.append(frame)
            assert scene.commit(rows_of(self.slot))

    def whole_shard(self, scene: StoredFrame, *, checked: bool = False) -> None:
        """One assignment for each array (steps, ...)."""
        folder = self._fresh()
        for name, array in self._zarr(folder, checked=checked).items():
            array[0] = scene[name]
        fsync_tree(folder)

    def frame_by_frame(self, frames: Sequence[StoredFrame]) -> None:
        """One assignment for each array and frame."""
        folder = self._fresh()
        arrays = self._zarr(folder)
        for step, frame in enumerate(frames):
            for name, values in frame.items():
                arrays[name][0, step] = values
        fsync_tree(folder)

    def plain_file(self, frames: Sequence[StoredFrame]) -> None:
        """What the disk allows: no index, no checksums, one fsync; the disk may begin early, as for ours."""
        folder = self._fresh()
        folder.mkdir()
        descriptor, end = os.open(folder / "file", os.O_WRONLY | os.O_CREAT), 0
        for frame in frames:
            for values in frame.values():
                os.write(descriptor, np.ascontiguousarray(values).data)
                start_writeback(descriptor, end, values.nbytes)
                end += values.nbytes
        os.fsync(descriptor)
        os.close(descriptor)

    def _fresh(self) -> Path:
        return self.folder / f"scene-{next(self._numbers)}"

    def _zarr(self, folder: Path, *, checked: bool = False) -> dict[str, Any]:
        import zarr  # noqa: PLC0415
        from zarr.codecs import Crc32cCodec  # noqa: PLC0415

        group = zarr.create_group(folder)
        return {
            array.name: group.create_array(
                array.name,
                shape=(1, self.slot.length, *array.shape),
                dtype=array.dtype,
                shards=(1, self.slot.length, *array.shape),
                chunks=(1, 1, *array.shape),
                compressors=Crc32cCodec() if checked else None,
                fill_value=0,
            )
            for spec in self.specs
            for array in spec.stored("int8")
        }


def written_bytes(work: Contender) -> int:
    """What one round hands to the kernel's write calls."""
    before = _write_calls_bytes()
    work(0)
    return _write_calls_bytes() - before


def stacked(frames: Sequence[StoredFrame]) -> StoredFrame:
    """A scene in memory, (steps, ...) by name."""
    return {name: np.stack([frame[name] for frame in frames]) for name in frames[0]}


def compare(scenes: Scenes, frames: Sequence[StoredFrame], rounds: int) -> list[Comparison]:
    """Rows: from stored numbers, then from floats."""
    floats = [{"bev": np.float32(0.01) * frame["bev"]} for frame in frames[:1]] * len(frames)
    (spec,) = scenes.specs

    def quantised() -> list[StoredFrame]:
        return [encode(spec, frame["bev"], "int8") for frame in floats]

    whole, rows = stacked(frames), []
    for source, contenders in {
        "stored": {
            "ours": lambda _: scenes.ours(frames, stored=True),
            WHOLE: lambda _: scenes.whole_shard(whole),
            CHECKED: lambda _: scenes.whole_shard(whole, checked=True),
            FRAMEWISE: lambda _: scenes.frame_by_frame(frames),
            PLAIN: lambda _: scenes.plain_file(frames),
        },
        "from floats": {
            "ours": lambda _: scenes.ours(floats, stored=False),
            WHOLE: lambda _: scenes.whole_shard(stacked(quantised())),
            FRAMEWISE: lambda _: scenes.frame_by_frame(quantised()),
        },
    }.items():
        seconds = time_rounds(contenders, rounds, scenes.clear)
        rates = {name: spread([len(frames) / value for value in values]) for name, values in seconds.items()}
        rows += [
            Comparison(
                name,
                source,
                rates["ours"],
                rates[name],
                ratio(seconds[name], seconds["ours"]),
                goal if source == "stored" else None,
            )
            for name, goal in GOALS.items()
            if name in rates
        ]
    return rows


def amounts(scenes: Scenes, frames: Sequence[StoredFrame]) -> list[tuple[str, ...]]:
    """Rows of bytes written."""
    raw = frame_bytes(scenes.specs, "int8") * len(frames)
    work: dict[str, Contender] = {
        "ours": lambda _: scenes.ours(frames, stored=True),
        WHOLE: lambda _: scenes.whole_shard(stacked(frames)),
        FRAMEWISE: lambda _: scenes.frame_by_frame(frames),
    }
    rows = []
    for name, contender in work.items():
        written = written_bytes(contender)
        rows.append((name, f"{written / 1e6:.0f}", f"{written / raw:.3g}"))
        scenes.clear()
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = command_line(__doc__, rounds=5)
    parser.add_argument("--steps", type=int, default=20, help="keyframes in the scene")
    parser.add_argument("--cells", type=int, default=BASE_CELLS, help="rows and columns of the BEV grid")
    chosen = parser.parse_args(arguments)
    specs, (slot,) = base_specs(chosen.cells, ("bev",)), slots_of(1, chosen.steps)
    frames = list(stored_frames(specs, chosen.steps))
    with scratch(chosen.folder, 4 * frame_bytes(specs, "int8") * chosen.steps / 1e9) as folder:
        scenes = Scenes(folder, specs, slot, chosen.cells)
        rows = compare(scenes, frames, chosen.rounds)
        scenes.clear()
        sizes = amounts(scenes, frames)
    print_comparisons(rows)
    print()
    print_table(("writer", "MB written", "times the data"), sizes)


def _write_calls_bytes() -> int:
    (line,) = [line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("wchar")]
    return int(line.split()[1])


if __name__ == "__main__":
    main()
