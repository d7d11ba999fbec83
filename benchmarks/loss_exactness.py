"""How much rounding changes the losses of every distiller: the teacher's float32 against the int8 and float16 caches.

    python -m benchmarks.loss_exactness

The demo's student and teacher on a few scenes of its world, clips of two frames. The same batches go through the same
untrained student three times, with all distillers at once, whatever is drawn at random being drawn alike; only the
teacher's numbers differ. The teacher has the weights that come with the program where these fit the recipe, else random
ones; the first column's heading says which. No time is measured, and a machine gives the same table every time. Prints
a Markdown table; a figure is the median (min–max) over the batches.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from benchmarks.live_targets import LiveTargets, keep_live, live_features
from benchmarks.machine import scratch
from benchmarks.report import print_table
from benchmarks.rounds import Spread, spread
from benchmarks.small_stage import Student, fill_cache, small_world, stage_source
from cache.reading import Cache
from pipeline.recipe import Recipe
from pipeline.recipes import load_recipe, with_cache
from pipeline.shipped_weights import finished_teacher
from pipeline.teacher_stage.job import settle_arithmetic
from pipeline.teacher_stage.teacher import WeightsSource
from scenes.scene_tables import SceneTables
from schemas.features import Tier
from train.batches import BatchStream
from train.clips import ClipOptions, ClipPosition
from train.distiller_catalogue import DISTILLERS, DistillationOptions
from train.learner import Learner
from train.run import clip_plan, distillers_of, planned_batches
from train.stream import TargetWindow

LIVE = "live"
TIERS: tuple[Tier, ...] = ("int8", "float16")
COLUMNS = ("live, float32", "int8, relative difference", "float16, relative difference")
CPU = torch.device("cpu")
SEED = 0

Terms = Mapping[str, float]


@dataclass(frozen=True)
class World:
    """One teacher's numbers in three forms.

    Attributes:
        tables: the scenes.
        caches: by tier.
        live: folder of live features.
    """

    tables: SceneTables
    caches: Mapping[Tier, Cache]
    live: Path


def make(recipe: Recipe, folder: Path, scenes: int, steps: int) -> tuple[World, str]:
    """Write a world, and everything that the teacher makes of it; tells which teacher it was."""
    tables = small_world(folder / "world", recipe, scenes, steps)
    checkpoint = finished_teacher(recipe)
    weights = WeightsSource(checkpoint, untrained=checkpoint is None)
    caches: dict[Tier, Cache] = {}
    for tier in TIERS:
        source = stage_source(with_cache(recipe, (), tier, None), tables, weights, CPU)
        caches[tier] = fill_cache(source, folder / tier)
    names = [spec.name for spec in source.manifest.features]
    for scene in source.names:
        keep_live(folder / "live", scene, live_features(source, scene), names)
    return World(tables, caches, folder / "live"), "untrained" if checkpoint is None else "trained"


def terms_of(recipe: Recipe, world: World, form: str, batches: int) -> Iterator[Terms]:
    """Loss terms of the recipe's distillers, batch by batch, from one form of the teacher's numbers."""
    cache = world.caches["int8" if form == LIVE else form]  # type: ignore[index]
    run = Student(recipe, world.tables, cache, CPU).run(Path(), None)
    torch.manual_seed(SEED)
    learner = Learner(run.detector, distillers_of(run), "float32").train()
    window = TargetWindow(learner.distillers.requires, learner.distillers.teacher_frames, run.options.batch_size)
    with ExitStack() as opened:
        source = LiveTargets(world.live, cache, window, CPU) if form == LIVE else run.targets(window)
        assert source is not None
        targets = opened.enter_context(source)
        planned = planned_batches(clip_plan(run), run.options, 0, ClipPosition())
        grid = run.detector.config.grid
        stream = opened.enter_context(BatchStream(planned, run.load_frame, targets, grid, run.options.stream, CPU))
        for number, batch in enumerate(islice(stream, batches)):
            torch.manual_seed(SEED + number)
            with torch.no_grad():
                terms, _ = learner(batch, None)
            yield {name: float(value) for name, value in terms.items() if not name.startswith("detection/")}


def rows_of(recipe: Recipe, world: World, batches: int) -> Iterator[tuple[str, ...]]:
    """The rows of the recipe's distillers."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for form in (LIVE, *TIERS):
        for terms in terms_of(recipe, world, form, batches):
            for name, value in terms.items():
                found[name][form].append(value)
    for name, values in found.items():
        differences = [
            spread([_apart(value, exact) for value, exact in zip(values[tier], values[LIVE], strict=True)])
            for tier in TIERS
        ]
        yield name, str(spread(values[LIVE])), *map(_in_words, differences)


def every_distiller(recipe: Recipe) -> Recipe:
    """The recipe with all distillers as they are shipped, and clips of two frames, so that terms over time count."""
    names = tuple(name for name in DISTILLERS if name != "none")
    changes = {
        "distillation": DistillationOptions(names=names),
        "clips": ClipOptions(length=2),
        "history_from_step": 0,
        "seed": SEED,
    }
    training = recipe.student.training.model_copy(update=changes)
    return recipe.model_copy(update={"student": recipe.student.model_copy(update={"training": training})})


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to put the data, for the time of the run; default: TMPDIR")
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20, help="keyframes in a scene")
    parser.add_argument("--rounds", type=int, default=4, help="batches (default 4)")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    settle_arithmetic()
    recipe = every_distiller(load_recipe("demo"))
    with scratch(chosen.folder, 1) as folder:
        world, teacher = make(recipe, folder, chosen.scenes, chosen.steps)
        print_table((f"loss term ({teacher} teacher)", *COLUMNS), list(rows_of(recipe, world, chosen.rounds)))


def _apart(value: float, exact: float) -> float:
    return abs(value - exact) / max(abs(exact), 1e-12)


def _in_words(difference: Spread) -> str:
    return f"{difference.median:.1e} ({difference.low:.1e}–{difference.high:.1e})"


if __name__ == "__main__":
    main()
