"""A student's training step fed from the cache against the same step with the teacher run online.

    python -m benchmarks.online_teacher                         # the demo on the processor, and Base on a GPU if any
    python -m benchmarks.online_teacher --recipe bevformer-base --device cuda

Both sides are the program's own training loop on the same frames of a synthetic world, in the same process, on the same
processors, with the recipe's student, distillers and options (from the first step on with history). Weights are random:
no time depends on them. Online, the teacher runs in every step, in inference mode, batched over the clips, its images
decoded ahead by threads as the student's are; frames of history skip its decoder, and its features reach the
distillers as float32 without leaving the device. It sees of every clip

* four frames, Base's published queue;
* for the demo, also all frames from the start of the scene on: its teacher streams, so these alone give the targets
  that a cache holds, which cannot be had from a clip of four;
* for the demo, also one frame, the least there can be: a teacher without memory. (Where students are trained on streams
  too, this is also the price of a teacher that streams beside its student, which ties batches to the scenes' order.)

Prints two Markdown tables: ms a step, and peak memory, each side in a process of its own.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import rmtree

import torch

from benchmarks.machine import command_line, peak_resident_mb, pin, scratch
from benchmarks.online_targets import OnlineTargets, OnlineTeacher
from benchmarks.report import COMPARISON_COLUMNS, Comparison, Goal, print_comparisons, print_table
from benchmarks.rounds import figures_of_rounds, ratio, spread
from benchmarks.small_stage import Student, fill_cache, small_world, stage_source
from cache.reading import open_cache
from pipeline.recipe import Recipe
from pipeline.recipes import load_recipe
from pipeline.teacher_stage.job import settle_arithmetic
from pipeline.teacher_stage.teacher import WeightsSource, load_detector
from scenes.synthetic.options import TABLE_VERSION
from scenes.tables import load_tables
from train.loop import train
from train.metrics_log import StepReport
from train.stream import OpenTargets

CACHED = "cached"
WHOLE_SCENE = "scene"
PUBLISHED_QUEUE = "4"
DEMO_QUEUES = (PUBLISHED_QUEUE, WHOLE_SCENE, "1")
GOAL = Goal(5)
UNTRAINED = WeightsSource(None, untrained=True)
MEMORY_STEPS = 3
MEMORY_COLUMNS = ("peak memory", "cached, MB", "online, MB", "online / cached")


class StudentSteps:
    """Training steps of a recipe's student, with the targets of the cache or of the teacher online.

    Args:
        recipe: of both.
        device: of both.
        folder: holds ``world`` and ``cache``.
    """

    def __init__(self, recipe: Recipe, device: torch.device, folder: Path) -> None:
        tables = load_tables(folder / "world", TABLE_VERSION)
        self._student = Student(recipe, tables, open_cache(folder / "cache"), device)
        self._out = folder / "run"
        self._online: OnlineTeacher | None = None

    def seconds(self, side: str, warm_up: int, timed: int) -> float:
        """Of some steps of a fresh run, after others that do not count.

        Args:
            side: ``CACHED``, or frames of each clip that the teacher online sees.
            warm_up: at least 1.
            timed: steps.
        """
        times: list[float] = []

        def on_step(report: StepReport) -> None:
            if report.step in (warm_up, warm_up + timed):
                times.append(self._now())

        rmtree(self._out, ignore_errors=True)
        opened = None if side == CACHED else self._open_online(None if side == WHOLE_SCENE else int(side))
        train(self._student.run(self._out, opened), on_step, max_steps=warm_up + timed)
        begin, end = times
        return end - begin

    def _open_online(self, queue: int | None) -> OpenTargets:
        recipe, device, cache = self._student.recipe, self._student.device, self._student.cache
        if self._online is None:
            detector, _ = load_detector(recipe.teacher, UNTRAINED)
            detector.eval().to(device)
            self._online = OnlineTeacher(detector, recipe.teacher.precision, self._student.tables, queue)
        teacher = replace(self._online, queue=queue)
        stream = recipe.student.training.stream
        return lambda window: OnlineTargets(teacher, cache, window, stream, device)

    def _now(self) -> float:
        if self._student.device.type == "cuda":
            torch.cuda.synchronize(self._student.device)
        return time.perf_counter()


def prepare(recipe: Recipe, device: torch.device, folder: Path, chosen: argparse.Namespace) -> None:
    """Write the world and fill the cache."""
    tables = small_world(folder / "world", recipe, chosen.scenes, chosen.steps)
    fill_cache(stage_source(recipe, tables, UNTRAINED, device), folder / "cache")


def chosen_recipe(name: str, assignments: Sequence[str]) -> Recipe:
    """The recipe; its student sees history from the first step on, as for most of a long training."""
    recipe = load_recipe(name, assignments)
    training = recipe.student.training.model_copy(update={"history_from_step": 0})
    return recipe.model_copy(update={"student": recipe.student.model_copy(update={"training": training})})


def compare(name: str, device: torch.device, chosen: argparse.Namespace) -> tuple[list[Comparison], tuple[str, ...]]:
    """The rows of one recipe on one device."""
    recipe = chosen_recipe(name, chosen.assignments)
    sides = (CACHED, *(DEMO_QUEUES if name == "demo" else (PUBLISHED_QUEUE,)))
    setting = f"{name}, {'+'.join(recipe.student.training.distillation.names)}, {device}"
    with scratch(chosen.folder, chosen.needed_gb) as folder:
        prepare(recipe, device, folder, chosen)
        steps = StudentSteps(recipe, device, folder)
        contenders = {side: partial(_round, steps, side, chosen) for side in sides}
        seconds = figures_of_rounds(contenders, chosen.rounds)
        peaks = [in_own_process(name, device, side, folder, chosen) for side in sides[:2]]
    ours = spread(seconds[CACHED]).scaled(1000 / chosen.timed)
    rows = [
        Comparison(
            f"the teacher online, {_told(side)}",
            setting,
            ours,
            spread(seconds[side]).scaled(1000 / chosen.timed),
            ratio(seconds[side], seconds[CACHED]),
            GOAL if name == "demo" and side in (PUBLISHED_QUEUE, WHOLE_SCENE) else None,
        )
        for side in sides[1:]
    ]
    return rows, (setting, f"{peaks[0]:.0f}", f"{peaks[1]:.0f}", f"{peaks[1] / peaks[0]:.2f}")


def peak_mb(steps: StudentSteps, side: str, device: torch.device) -> float:
    """Peak memory of this process, or of its GPU, after a few steps."""
    steps.seconds(side, 1, MEMORY_STEPS)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return peak_resident_mb()


def in_own_process(name: str, device: torch.device, side: str, folder: Path, chosen: argparse.Namespace) -> float:
    """``peak_mb`` of a fresh interpreter."""
    command = [sys.executable, "-m", "benchmarks.online_teacher", "--worker", side, "--folder", str(folder)]
    command += ["--recipe", name, "--device", str(device), "--threads", str(chosen.threads)]
    command += [part for assignment in chosen.assignments for part in ("--set", assignment)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, env=os.environ, check=True, text=True)
    return float(finished.stdout)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = command_line(__doc__, rounds=5)
    parser.add_argument("--recipe", help="default: demo, and bevformer-base where there is a GPU")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", dest="assignments", action="append", default=[], help="dotted.key=value of the recipe")
    parser.add_argument("--threads", type=int, default=2, help="processors, and torch's threads")
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20, help="keyframes in a scene")
    parser.add_argument("--warm-up", type=int, default=20, help="steps of each round that do not count; at least 1")
    parser.add_argument("--timed", type=int, default=20, help="steps of each round that count")
    parser.add_argument("--needed-gb", type=float, default=5, help="room for world and cache")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    pin(chosen.threads)
    torch.set_num_threads(chosen.threads)
    settle_arithmetic()
    if chosen.worker is not None:
        device = torch.device(chosen.device)
        steps = StudentSteps(chosen_recipe(chosen.recipe, chosen.assignments), device, chosen.folder)
        print(peak_mb(steps, chosen.worker, device))
        return
    _print(chosen)


def _print(chosen: argparse.Namespace) -> None:
    pairs = [("demo", "cpu")] if chosen.recipe is None else [(chosen.recipe, chosen.device)]
    if chosen.recipe is None and torch.cuda.is_available():
        pairs.append(("bevformer-base", "cuda"))
    rows: list[Comparison | tuple[str, ...]] = []
    peaks: list[tuple[str, ...]] = []
    for name, device in pairs:
        compared, measured = compare(name, torch.device(device), chosen)
        rows += compared
        peaks.append(measured)
    if chosen.recipe is None and len(pairs) == 1:
        rows.append(("the teacher online", "bevformer-base, cuda: no GPU here", *[""] * (len(COMPARISON_COLUMNS) - 2)))
    print_comparisons(rows)
    print()
    print_table(MEMORY_COLUMNS, peaks)


def _round(steps: StudentSteps, side: str, chosen: argparse.Namespace, _: int) -> float:
    return steps.seconds(side, chosen.warm_up, chosen.timed)


def _told(side: str) -> str:
    return {WHOLE_SCENE: "all frames of the scene so far", "1": "1 frame a clip"}.get(side, f"{side} frames a clip")


if __name__ == "__main__":
    main()
