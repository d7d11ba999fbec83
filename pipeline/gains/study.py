"""Which runs a study consists of, each with its recipe and its fingerprint: pure planning, nothing is trained here."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.reading import open_cache
from pipeline.gains.fingerprint import cache_hash, machine_in_words, short_hash, student_hash, surroundings
from pipeline.gains.record import RunIdentity
from pipeline.gains.rows import CACHES, Row
from pipeline.gains.run_row import RowJob, training_run
from pipeline.periodic_evaluation import with_evaluation
from pipeline.recipe import Recipe, override
from pipeline.recipes import with_distillers, with_training
from scenes.evaluation import require_labels
from scenes.scene_tables import SceneTables
from schemas.errors import UserError
from train.distiller_catalogue import needs_cache
from train.run import check_run, distillers_of

FIRST_TUNING_SEED = 100


@dataclass(frozen=True)
class StudyOptions:
    """What is to be run, and how.

    Attributes:
        recipe: the student that all rows share, its data and its teacher; with the command line's values.
        rows: to run.
        seeds: of each row; the row's own number of seeds, from 0 on, when empty.
        label: of a tuning run; empty for the study itself.
        assignments: the command line's ``dotted.key=value``, which win over a row's.
        split: that is scored.
        cache: the main teacher cache.
        out: folder for the runs.
        threads, jobs: of torch in a run, and runs at once.
        allow_untrained_teacher: accept a cache made with random weights.
    """

    recipe: Recipe
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    label: str
    assignments: tuple[str, ...]
    split: str
    cache: Path
    out: Path
    threads: int = 1
    jobs: int = 1
    allow_untrained_teacher: bool = False

    def cache_of(self, row: Row) -> Path:
        """The cache that a row reads, if it reads any."""
        return self.cache.with_name(f"{self.cache.name}-{row.cache}") if row.cache else self.cache

    def seeds_of(self, row: Row) -> tuple[int, ...]:
        """The seeds a row is run with; tuning has seeds of its own."""
        first, count = (FIRST_TUNING_SEED, 2) if self.label else (0, row.seeds)
        return self.seeds or tuple(range(first, first + count))


@dataclass(frozen=True)
class PlannedRun:
    """One run: which it is, what it does, and where.

    Attributes:
        row: that it belongs to.
        identity: what is kept of it beside the result.
        job: what its process is told.
        folder: its own.
    """

    row: Row
    identity: RunIdentity
    job: RowJob
    folder: Path

    @property
    def name(self) -> str:
        """For people: row and seed."""
        return f"{self.identity.row}, seed {self.identity.seed}"


def row_recipe(base: Recipe, row: Row, seed: int, assignments: Sequence[str] = ()) -> Recipe:
    """The recipe that a row trains with.

    Raises:
        RecipeError: an override that the recipe does not know or refuses; the row is named.
    """
    try:
        recipe = override(with_distillers(base, row.distillers), [*row.overrides, *assignments])
    except UserError as error:
        raise type(error)(f"Row {row.name!r} of the study: {error}") from error
    training = recipe.student.training
    steps = training.steps * row.steps_factor
    changed = training.model_copy(
        update={
            "steps": steps,
            "history_from_step": training.history_from_step * row.steps_factor,
            "evaluate_every": max(1, steps // row.curve_points) if row.curve_points else 0,
        }
    )
    student = recipe.student.model_copy(update={"training": changed})
    return with_training(recipe.model_copy(update={"student": student}), "student", seed)


def plan_runs(options: StudyOptions, tables: SceneTables) -> tuple[PlannedRun, ...]:
    """All runs, seed by seed, so that a study cut short holds whole pairs. Each row is tried on its cache first.

    Raises:
        UserError: a row cannot be run as it stands; it is named. Nothing has been written or trained.
    """
    require_labels(tables, options.split)
    around = surroundings(options.recipe, tables, options.split)
    paths = {options.cache, *map(options.cache_of, options.rows)}
    caches = {path: _hash_of_cache(path, around["data"]) for path in paths}
    student = student_hash(options.recipe, distilled=False)
    study = short_hash({"student": student, "cache": caches[options.cache], **around})
    runs = [
        _planned(options, tables, row, seed, {"study": study, "cache": caches[options.cache_of(row)], **around})
        for row in options.rows
        for seed in options.seeds_of(row)
    ]
    tried: set[str] = set()
    for run in runs:
        if run.row.name not in tried:
            tried.add(run.row.name)
            _try(run, tables)
    return tuple(sorted(runs, key=lambda run: run.identity.seed))


def _hash_of_cache(path: Path, data: str) -> str:
    """``none`` where there is no cache."""
    return cache_hash(open_cache(path).manifest, data) if path.exists() else "none"


def _planned(
    options: StudyOptions, tables: SceneTables, row: Row, seed: int, shared: Mapping[str, str | int]
) -> PlannedRun:
    """Args: shared: columns that are not the row's: study, cache, and the surroundings."""
    recipe = row_recipe(options.recipe, row, seed, options.assignments)
    training = recipe.student.training
    reads_cache = needs_cache(training.distillation.names)
    mine = {
        **{name: value for name, value in shared.items() if name != "study"},
        "recipe": student_hash(recipe, distilled=True),
        "cache": shared["cache"] if reads_cache else "none",
    }
    fingerprint = short_hash(mine)
    identity = RunIdentity.model_validate(
        {
            **mine,
            "study": shared["study"],
            "fingerprint": fingerprint,
            "label": options.label,
            "group": row.group,
            "row": row.name,
            "seed": seed,
            "distillers": ",".join(training.distillation.names),
            "overrides": (*row.overrides, *(options.assignments if options.label else ())),
            "steps": training.steps,
            "threads": options.threads,
            "jobs": options.jobs,
            "machine": machine_in_words(),
        }
    )
    job = RowJob(
        title=f"{row.name}, seed {seed}",
        recipe=recipe,
        data=tables.data_root,
        version=tables.version,
        cache=options.cache_of(row),
        split=options.split,
        threads=options.threads,
        allow_untrained_teacher=options.allow_untrained_teacher,
    )
    return PlannedRun(row, identity, job, options.out / f"{row.name}-{fingerprint[:8]}-seed{seed}")


def _try(run: PlannedRun, tables: SceneTables) -> None:
    """Build a row's student and distillers as the run will.

    Raises:
        UserError: they cannot work; the row is named.
    """
    try:
        training = with_evaluation(training_run(run.job, tables, run.folder))
        check_run(training)
        distillers_of(training)
    except UserError as error:
        made_with = " ".join(f"--set {shlex.quote(value)}" for value in CACHES.get(run.row.cache, ()))
        hint = f' Its cache is made with ARGS="{made_with}".' if made_with else ""
        raise type(error)(f"Row {run.row.name!r} of the study: {error}{hint}") from error
