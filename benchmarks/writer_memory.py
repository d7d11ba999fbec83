"""Peak memory of the process that writes a cache, for a short and a long scene: they should be the same.

    python -m benchmarks.writer_memory

Each length runs in a process of its own: the teacher stage's scene loop and write queue over a synthetic scene, with a
teacher that draws noise of Base's size (all features) and computes nothing. Prints a Markdown table.
"""

import argparse
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.base_frames import BASE_CELLS, base_manifest, base_specs
from benchmarks.machine import command_line, scratch
from benchmarks.report import Goal, print_table
from cache.writing import SceneSlot, open_for_writing
from pipeline.teacher_stage.job import CacheJob, StageOptions
from pipeline.teacher_stage.scene import cache_scene
from pipeline.teacher_stage.teacher import Teacher
from pipeline.teacher_stage.write_queue import WriteQueue
from scenes.splits import training_split
from scenes.synthetic import WorldOptions, write_world
from scenes.synthetic.options import TABLE_VERSION
from scenes.tables import load_tables
from schemas.bev_grid import BevGrid
from schemas.features import FeatureSpec, frame_bytes
from schemas.frames import CameraInputs
from schemas.manifest import Manifest
from schemas.preprocessing import Preprocessing

GOAL = Goal(1.1, at_most=True)
LENGTHS = (10, 40)


class NoiseTeacher:
    """A teacher whose features are uniform noise in [0, 1), which every encoding accepts."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    @property
    def preprocessing(self) -> Preprocessing:
        """As the manifest says."""
        return self._manifest.preprocessing

    @property
    def grid(self) -> BevGrid:
        """As the manifest says."""
        return self._manifest.grid

    @property
    def class_names(self) -> tuple[str, ...]:
        """As the manifest says."""
        return self._manifest.class_names

    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        """As the manifest says."""
        return self._manifest.features

    def features(self, _: CameraInputs, __: None) -> tuple[Mapping[str, Tensor], None]:
        """Fresh tensors, as a network would give."""
        return {spec.name: torch.rand(spec.shape) for spec in self.feature_specs()}, None

    def state_dict(self) -> Mapping[str, Tensor]:
        """Nothing."""
        return {}


def write_worlds(folder: Path) -> None:
    """A world of one scene for each length, its index built, so that no writer pays for that."""
    for steps in LENGTHS:
        sizes = {"image_width": 64, "image_height": 36}
        world = WorldOptions(train_scenes=1, tune_scenes=0, val_scenes=0, frames_per_scene=steps, **sizes)
        write_world(world, folder / f"world-{steps}", workers=1, on_scene=lambda _: None)
        load_tables(folder / f"world-{steps}", TABLE_VERSION, folder / "index")


def write_scene(folder: Path, steps: int, cells: int) -> float:
    """Cache the scene in this process.

    Returns:
        Peak resident memory in MB.
    """
    torch.set_num_threads(1)
    tables = load_tables(folder / f"world-{steps}", TABLE_VERSION, folder / "index")
    (name,) = tables.scene_names(training_split(tables.version))
    manifest = base_manifest(base_specs(cells), cells)
    slot = SceneSlot(name, tables.scene_token(name), tables.scene_length(name))
    assert slot.length == steps
    writer = open_for_writing(folder / f"cache-{steps}", manifest, [slot])
    teacher = Teacher(NoiseTeacher(manifest), manifest.teacher, "float32", "noise")
    options = StageOptions()
    job = CacheJob(teacher, tables, writer, manifest, torch.device("cpu"), options)
    with WriteQueue(manifest.features, manifest.tier, options.queue_frames) as queue:
        assert cache_scene(job, name, queue, lambda _: None).result()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def in_own_process(folder: Path, steps: int, chosen: argparse.Namespace) -> float:
    """The same in a fresh interpreter."""
    command = [sys.executable, "-m", "benchmarks.writer_memory", "--worker", str(steps), "--folder", str(folder)]
    command += ["--cells", str(chosen.cells)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True, text=True)
    return float(finished.stdout)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = command_line(__doc__, rounds=3)
    parser.add_argument("--cells", type=int, default=BASE_CELLS, help="rows and columns of the BEV grid")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.worker is not None:
        print(write_scene(chosen.folder, chosen.worker, chosen.cells))
        return
    one_frame = frame_bytes(base_specs(chosen.cells), "int8")
    peaks: dict[int, list[float]] = {steps: [] for steps in LENGTHS}
    for _ in range(chosen.rounds):
        with scratch(chosen.folder, 1.1 * one_frame * sum(LENGTHS) / 1e9 + 0.1) as folder:
            write_worlds(folder)
            for steps in LENGTHS:
                peaks[steps].append(in_own_process(folder, steps, chosen))
    _print(peaks, one_frame)


def _print(peaks: Mapping[int, Sequence[float]], one_frame: int) -> None:
    short, long = (max(peaks[steps]) for steps in LENGTHS)
    rows = []
    for steps, values in peaks.items():
        data = f"{steps * one_frame / 1e6:.0f}"
        told = f"{max(values):.0f} ({min(values):.0f}–{max(values):.0f})"
        last = (f"{long / short:.3f}", str(GOAL), GOAL.verdict(long / short)) if steps == LENGTHS[1] else ("", "", "")
        rows.append((f"{steps} frames", data, told, *last))
    print_table(("scene", "MB of data", "peak MB, highest (min–max)", "long / short", "goal", ""), rows)


if __name__ == "__main__":
    main()
