"""The teacher stage with caching against the forward pass alone: what the cache costs whoever has the teacher running.

    python -m benchmarks.caching_overhead             # the demo teacher on the processor, and Base on a GPU if any
    python -m benchmarks.caching_overhead --recipe bevformer-base --device cuda

Both decode the same frames of a synthetic world in the same number of threads, run the same seeded random weights and
keep to the same processors. With caching: quantise, queue, append, fsync, commit; the next scene begins while one is
being committed, as in the stage. Alone: the features are computed and dropped. Left out on both sides: the fidelity
table, which is made of a run's first few frames only. Prints a Markdown table; figures are ms a frame.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import torch

from benchmarks.machine import command_line, pin, scratch
from benchmarks.report import COMPARISON_COLUMNS, Comparison, Goal, print_comparisons
from benchmarks.rounds import ratio, spread, time_rounds
from cache.writing import SceneSlot, open_for_writing
from pipeline.recipe import Recipe
from pipeline.recipes import load_recipe
from pipeline.teacher_stage.job import CacheJob, StageOptions, describe, settle_arithmetic
from pipeline.teacher_stage.scene import cache_scene
from pipeline.teacher_stage.teacher import Teacher, WeightsSource, open_teacher, teacher_of
from pipeline.teacher_stage.write_queue import WriteQueue
from scenes.frame_stream import stream_frames
from scenes.scene_tables import SceneTables
from scenes.splits import training_split
from scenes.synthetic import WorldOptions, write_world
from scenes.synthetic.options import TABLE_VERSION
from scenes.tables import load_tables
from train.learner import autocast

GOAL = Goal(1.05, at_most=True)
FULL_SIZE_WH = (1600, 900)


class Stage:
    """A teacher, its frames, and fresh caches to fill.

    Args:
        recipe: of the teacher and the cache.
        tables: the world; all of its training scenes are used.
        device: where the teacher runs.
        folder: for the caches.
    """

    def __init__(self, recipe: Recipe, tables: SceneTables, device: torch.device, folder: Path) -> None:
        self.tables, self.device, self.options = tables, device, StageOptions()
        split = training_split(tables.version)
        self.names = tables.scene_names(split)
        choice = teacher_of(recipe, WeightsSource(None, untrained=True))
        self.teacher: Teacher = open_teacher(choice, device)
        self.manifest = describe(recipe, self.teacher, tables, split, device)
        self._folder = folder

    @property
    def frames(self) -> int:
        """Of a round."""
        return sum(self.tables.scene_length(name) for name in self.names)

    def with_caching(self, number: int) -> None:
        """Fill a cache of its own."""
        slots = [SceneSlot(n, self.tables.scene_token(n), self.tables.scene_length(n)) for n in self.names]
        writer = open_for_writing(self._folder / f"cache-{number}", self.manifest, slots)
        job = CacheJob(self.teacher, self.tables, writer, self.manifest, self.device, self.options)
        commits: list[Future[bool]] = []
        with WriteQueue(self.manifest.features, self.manifest.tier, self.options.queue_frames) as queue:
            for name in self.names:
                commits.append(cache_scene(job, name, queue, lambda _: None))
                for done in commits[:-1]:
                    assert done.result()
            assert commits[-1].result()

    def alone(self, _: int) -> None:
        """Compute the features, and drop them."""
        for name in self.names:
            previous = None
            frames = self.tables.frames(name)
            threads = self.options.decode_threads
            for inputs in stream_frames(frames, self.tables.data_root, self.manifest.preprocessing, threads=threads):
                with torch.inference_mode(), autocast(self.device, self.teacher.precision):
                    _, previous = self.teacher.network.features(inputs, previous)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def compare(recipe_name: str, device: torch.device, chosen: argparse.Namespace) -> Comparison:
    """The row of one teacher on one device."""
    recipe = load_recipe(recipe_name)
    size = FULL_SIZE_WH if recipe.world is None else (recipe.world.image_width, recipe.world.image_height)
    world = WorldOptions(
        train_scenes=chosen.scenes,
        tune_scenes=0,
        val_scenes=0,
        frames_per_scene=chosen.steps,
        image_width=size[0],
        image_height=size[1],
    )
    with scratch(chosen.folder, chosen.needed_gb) as folder:
        write_world(world, folder / "world", workers=1, on_scene=lambda _: None)
        stage = Stage(recipe, load_tables(folder / "world", TABLE_VERSION), device, folder)
        contenders = {"ours": stage.with_caching, "alone": stage.alone}
        seconds = time_rounds(contenders, chosen.rounds)
    ours, alone = (spread(seconds[name]).scaled(1000 / stage.frames) for name in ("ours", "alone"))
    more = ratio(seconds["ours"], seconds["alone"])
    return Comparison("the forward pass alone", f"{recipe.teacher.name}, {device}", ours, alone, more, GOAL)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = command_line(__doc__, rounds=5)
    parser.add_argument("--recipe", help="of the teacher; default: demo, and bevformer-base where there is a GPU")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="processors, and torch's threads")
    parser.add_argument("--scenes", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20, help="keyframes in a scene")
    parser.add_argument("--needed-gb", type=float, default=4, help="room for the caches of all rounds")
    chosen = parser.parse_args(arguments)
    pin(chosen.threads)
    torch.set_num_threads(chosen.threads)
    settle_arithmetic()
    compare_on = partial(compare, chosen=chosen)
    if chosen.recipe is not None:
        print_comparisons([compare_on(chosen.recipe, torch.device(chosen.device))])
        return
    rows: list[Comparison | tuple[str, ...]] = [compare_on("demo", torch.device("cpu"))]
    if torch.cuda.is_available():
        rows.append(compare_on("bevformer-base", torch.device("cuda")))
    else:
        rows.append(
            ("the forward pass alone", "bevformer-base, cuda: no GPU here", *[""] * (len(COMPARISON_COLUMNS) - 2))
        )
    print_comparisons(rows)


if __name__ == "__main__":
    main()
