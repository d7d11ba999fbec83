"""The program ``gains``: what its options mean, and its stages one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.dataset import DataChoice, open_data
from pipeline.gains.conduct import conduct
from pipeline.gains.places import places_of
from pipeline.gains.record import read_records
from pipeline.gains.report import write_report
from pipeline.gains.rows import CACHES, OPTIONS, Row, chosen_rows
from pipeline.gains.study import StudyOptions, plan_runs
from pipeline.gains.tuning import print_tuning
from pipeline.missing_cache import make_missing_cache
from pipeline.paths import OUT, cache_folder
from pipeline.periodic_evaluation import TUNE_SPLIT
from pipeline.recipe import Recipe
from pipeline.recipes import load_recipe, with_distillers
from scenes.splits import validation_split
from schemas.errors import RecipeError
from train.distiller_catalogue import needs_cache


@dataclass(frozen=True)
class GainsChoice:
    """What the command line said.

    Attributes:
        recipe: a name or a file; with ``assignments`` it is what all rows share.
        assignments: ``dotted.key=value`` each.
        data: directory and version.
        cache: the teacher's; the recipe's when None.
        rows: names; all when empty.
        seeds: of each row; the rows' own when empty.
        label: of a tuning run, which is scored on the tune scenes; None for the study itself.
        out: folder of the runs; ``out/<recipe>/gains`` when None.
        jobs, threads: runs at once, and torch's threads in each.
        allow_untrained_teacher: accept a cache made with random weights.
    """

    recipe: str
    assignments: tuple[str, ...]
    data: DataChoice
    cache: Path | None
    rows: tuple[str, ...]
    seeds: tuple[int, ...]
    label: str | None
    out: Path | None
    jobs: int
    threads: int
    allow_untrained_teacher: bool


def gains(choice: GainsChoice) -> None:
    """Run what the study lacks, then write its report; or file runs for tuning.

    Raises:
        UserError: a row that cannot be run, data, cache or results that do not fit, or runs that failed.
        KeyboardInterrupt: stopped; the same command goes on.
    """
    if choice.label is not None and not choice.label.strip():
        raise RecipeError("--tune needs a label that says what is tried, e.g. --tune 'fd3d, share 0.3'")
    if choice.label is None:
        _refuse_other_rows(choice.assignments)
    recipe, rows = load_recipe(choice.recipe, choice.assignments), chosen_rows(choice.rows)
    tables = open_data(recipe, choice.data)
    _make_caches(choice, recipe, rows)
    options = StudyOptions(
        recipe=recipe,
        rows=rows,
        seeds=choice.seeds,
        label=choice.label or "",
        assignments=choice.assignments,
        split=validation_split(tables.version) if choice.label is None else TUNE_SPLIT,
        cache=choice.cache or cache_folder(recipe),
        out=choice.out or OUT / recipe.name / "gains",
        threads=choice.threads,
        jobs=choice.jobs,
        allow_untrained_teacher=choice.allow_untrained_teacher,
    )
    runs = plan_runs(options, tables)
    places = places_of(recipe.name)
    if choice.label is not None:
        conduct(options, runs, places.tuning)
        print_tuning(read_records(places.tuning), runs[0].identity.study)
        return
    try:
        conduct(options, runs, places.rows)
    finally:
        study = runs[0].identity.study
        if any(record.study == study for record in read_records(places.rows)):
            write_report(places, study)


def report(recipe_name: str, assignments: Sequence[str]) -> None:
    """Write the report of what has been run, without running anything.

    Raises:
        UserError: nothing has been run, or the file of results is damaged.
    """
    write_report(places_of(load_recipe(recipe_name, assignments).name), None)


def _refuse_other_rows(assignments: Sequence[str]) -> None:
    """What is set on the command line wins over a row's own, and its run would be filed as the row's.

    Raises:
        RecipeError: a distiller's setting is among it.
    """
    of_rows = [assignment for assignment in assignments if f"{assignment.partition('=')[0]}.".startswith(f"{OPTIONS}.")]
    if of_rows:
        raise RecipeError(
            f"--set {of_rows[0]}: in the study each row says how it distils (pipeline/gains/rows.py), and this would "
            "be filed under a row that says otherwise. Expected other settings of the recipe here; try this one with "
            "--tune LABEL, which files it apart and scores it on the tune scenes"
        )


def _make_caches(choice: GainsChoice, recipe: Recipe, rows: Sequence[Row]) -> None:
    """The embedded demo's caches are made when they are missing; others are the user's to make."""
    if choice.cache is not None or choice.data.data is not None:
        return
    main = cache_folder(recipe)
    for name in dict.fromkeys(row.cache for row in rows if needs_cache(row.distillers)):
        sets = [part for value in (*choice.assignments, *CACHES.get(name, ())) for part in ("--set", value)]
        path = main.with_name(f"{main.name}-{name}") if name else None
        learning = next(row for row in rows if row.cache == name and needs_cache(row.distillers))
        make_missing_cache(with_distillers(recipe, learning.distillers), ["--recipe", choice.recipe, *sets], (), path)
