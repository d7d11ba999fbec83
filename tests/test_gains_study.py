"""The study's plan: recipes of rows, what makes runs comparable, and what is refused before anything runs."""

import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from gains_records import made_up
from stage_runs import SMALL_TEACHER, cached_serially, choice_of

from cache.reading import open_cache
from pipeline.dataset import DataChoice, open_data
from pipeline.gains.conduct import standing
from pipeline.gains.fingerprint import cache_hash, data_hash
from pipeline.gains.record import Record, add_record, read_records
from pipeline.gains.rows import CACHES, ROWS, Row, chosen_rows
from pipeline.gains.run_row import training_run
from pipeline.gains.study import PlannedRun, StudyOptions, plan_runs, row_recipe
from pipeline.recipes import load_recipe
from scenes.scene_tables import SceneTables
from scenes.synthetic.options import WorldOptions
from scenes.synthetic.write import SIGNATURE
from schemas.errors import CacheError, RecipeError
from train.run import clip_plan

ASSIGNMENTS = (*SMALL_TEACHER, "student.training.steps=100", "student.training.history_from_step=40")
RECIPE = load_recipe("demo", ASSIGNMENTS)
NONE, FEATURE = chosen_rows(("none", "feature"))


@pytest.fixture(scope="module")
def cache(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gains") / "cache"
    cached_serially(choice_of(tiny_world, path))
    return path


@pytest.fixture
def tables(tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SceneTables:
    monkeypatch.chdir(tmp_path)
    return open_data(RECIPE, DataChoice(tiny_world))


@pytest.fixture
def options(cache: Path, tmp_path: Path) -> StudyOptions:
    return StudyOptions(
        recipe=RECIPE,
        rows=(NONE, FEATURE),
        seeds=(),
        label="",
        assignments=(),
        split="val",
        cache=cache,
        out=tmp_path / "runs",
        allow_untrained_teacher=True,
    )


def by_name(runs: tuple[PlannedRun, ...]) -> dict[str, str]:
    return {run.row.name: run.identity.fingerprint for run in runs}


def test_rows_are_consistent() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    for row in ROWS:
        assert row.against in names
        assert row.also_against in ("", *names)
        assert row.cache in ("", *CACHES)
        row_recipe(RECIPE, row, seed=0)


def test_the_demo_trains_the_best_row() -> None:
    (best,) = chosen_rows(("best",))
    demo = load_recipe("demo")
    assert row_recipe(demo, best, demo.student.training.seed) == demo


def test_a_row_without_a_teacher_inherits_nothing() -> None:
    assert row_recipe(load_recipe("demo"), NONE, 0).student.training.distillation.inherit == ()


def test_a_row_is_the_recipe_with_its_values() -> None:
    row = Row("x", "budget", ("pkd",), overrides=("student.training.batch_size=3",), steps_factor=3, curve_points=10)
    training = row_recipe(RECIPE, row, seed=7, assignments=["student.training.batch_size=5"]).student.training
    assert training.distillation.names == ("pkd",)
    assert (training.steps, training.history_from_step, training.evaluate_every) == (300, 120, 30)
    assert (training.seed, training.batch_size) == (7, 5)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Row("odd", "headline", ("pkd",), overrides=("student.training.stepz=3",)), "no 'student.training.stepz'"),
        (Row("odd", "headline", ("pkd",), overrides=("student.training.steps=many",)), "student.training.steps: "),
        (Row("odd", "headline", ("pdk",)), "--distiller takes one or more of"),
    ],
)
def test_a_row_that_makes_no_sense_is_refused_before_anything(
    row: Row, message: str, options: StudyOptions, tables: SceneTables
) -> None:
    with pytest.raises(RecipeError, match=rf"Row 'odd' of the study: .*{message}"):
        plan_runs(replace(options, rows=(NONE, row)), tables)
    assert not options.out.exists()


def test_a_row_without_its_cache_is_refused_before_anything(options: StudyOptions, tables: SceneTables) -> None:
    row = replace(FEATURE, cache="look-ahead")
    with pytest.raises(
        CacheError, match=r"Row 'feature' of the study: there is no teacher cache at .*--set cache.temporal"
    ):
        plan_runs(replace(options, rows=(row,)), tables)


def test_unknown_rows_are_named() -> None:
    with pytest.raises(RecipeError, match="--rows: the study has no row nonne; it has best,"):
        chosen_rows(("none", "nonne"))


def test_runs_come_seed_by_seed(options: StudyOptions, tables: SceneTables) -> None:
    runs = plan_runs(replace(options, seeds=(4, 2)), tables)
    assert [run.name for run in runs] == ["none, seed 2", "feature, seed 2", "none, seed 4", "feature, seed 4"]
    assert len({run.folder for run in runs}) == 4
    assert [run.job.recipe.student.training.seed for run in runs] == [2, 2, 4, 4]


def test_rows_of_one_seed_are_pairs(options: StudyOptions, tables: SceneTables) -> None:
    """The same first weights and the same order of clips, with a cache and without; other ones for another seed."""
    ours, theirs, other = (
        training_run(run.job, tables, run.folder) for run in plan_runs(replace(options, seeds=(1, 2)), tables)[:3]
    )
    assert ours.cache is None
    assert theirs.cache is not None
    weights, partner = ours.detector.state_dict(), theirs.detector.state_dict()
    assert all(torch.equal(value, partner[name]) for name, value in weights.items())
    assert not all(torch.equal(value, other.detector.state_dict()[name]) for name, value in weights.items())
    plans = [[clip_plan(run).epoch(epoch) for epoch in (0, 5)] for run in (ours, theirs, other)]
    assert plans[0] == plans[1] != plans[2]


def test_tuning_has_seeds_of_its_own(options: StudyOptions, tables: SceneTables) -> None:
    runs = plan_runs(replace(options, rows=(NONE,), label="try", split="tune"), tables)
    assert [run.identity.seed for run in runs] == [100, 101]
    assert {run.identity.split for run in runs} == {"tune"}


def test_a_fingerprint_is_of_what_changes_numbers(options: StudyOptions, tables: SceneTables) -> None:
    first = plan_runs(options, tables)
    assert len(set(by_name(first).values())) == 2, "the seed is beside the fingerprint, not in it"
    same = RECIPE.student.training.model_copy(update={"log_every": 3, "checkpoint_every": 7})
    quiet = RECIPE.model_copy(update={"student": RECIPE.student.model_copy(update={"training": same})})
    again = plan_runs(replace(options, recipe=quiet, threads=2, jobs=2), tables)
    assert [run.identity.study for run in again] == [run.identity.study for run in first]
    assert by_name(again) == by_name(first)


def test_an_embedded_world_is_the_same_data_whoever_rendered_it(
    tiny_world: Path, cache: Path, tables: SceneTables
) -> None:
    signature = json.loads((tiny_world / SIGNATURE).read_text())["options"]
    embedded = RECIPE.model_copy(update={"world": WorldOptions(**signature)})
    manifest = open_cache(cache).manifest
    elsewhere = Mock(spec=SceneTables, data_root=tables.data_root, tables_sha256="f" * 64)
    assert data_hash(embedded, tables) == data_hash(embedded, elsewhere)
    other_seed = embedded.model_copy(update={"world": WorldOptions(**{**signature, "seed": 7})})
    assert data_hash(other_seed, tables) == tables.tables_sha256[:12], "not that recipe's world, so its tables count"
    assert data_hash(other_seed, elsewhere) == "f" * 12
    dataset = manifest.dataset.model_copy(update={"tables_sha256": "f" * 64})
    rendered_elsewhere = manifest.model_copy(update={"dataset": dataset})
    assert rendered_elsewhere.fingerprint != manifest.fingerprint
    assert cache_hash(rendered_elsewhere, "world") == cache_hash(manifest, "world") != cache_hash(manifest, "other")
    other_teacher = manifest.model_copy(update={"precision": "float16"})
    assert cache_hash(other_teacher, "world") != cache_hash(manifest, "world")


def test_another_setting_is_another_row_of_the_same_study(options: StudyOptions, tables: SceneTables) -> None:
    first = plan_runs(options, tables)
    tuned = replace(FEATURE, overrides=("student.training.distillation.feature.weight=0.5",))
    other = plan_runs(replace(options, rows=(NONE, tuned)), tables)
    assert other[0].identity.study == first[0].identity.study
    assert by_name(other)["none"] == by_name(first)["none"]
    assert by_name(other)["feature"] != by_name(first)["feature"]


def test_settings_that_a_row_does_not_read_do_not_count(options: StudyOptions, tables: SceneTables) -> None:
    """Tuning one distiller must not have the others, or ``none``, trained again."""
    before = plan_runs(replace(options, label="a"), tables)
    tried = "student.training.distillation.feature.weight=0.5"
    base = load_recipe("demo", [*ASSIGNMENTS, tried])
    after = plan_runs(replace(options, recipe=base, label="b", assignments=(tried,)), tables)
    assert after[0].identity.study == before[0].identity.study
    assert by_name(after)["none"] == by_name(before)["none"]
    assert by_name(after)["feature"] != by_name(before)["feature"]


def test_another_budget_or_split_is_another_study(options: StudyOptions, tables: SceneTables) -> None:
    first = plan_runs(options, tables)[0].identity.study
    longer = load_recipe("demo", ["student.training.steps=101"])
    for other in (replace(options, recipe=longer), replace(options, split="tune")):
        assert plan_runs(other, tables)[0].identity.study != first


def filed(run: PlannedRun, **changes: object) -> Record:
    identity = {name: value for name, value in dict(run.identity).items() if name not in ("row", "seed")}
    return made_up(run.row.name, run.identity.seed, 0.1, **(identity | changes))


def test_runs_in_the_file_are_not_made_again(options: StudyOptions, tables: SceneTables, tmp_path: Path) -> None:
    results, runs = tmp_path / "rows.csv", plan_runs(replace(options, seeds=(0,)), tables)
    add_record(results, filed(runs[0]))
    add_record(results, filed(runs[1], fingerprint="earlier"))
    add_record(results, filed(runs[1], study="another", fingerprint="another"))
    now = standing(runs, results)
    assert [record.row for record in now.done] == ["none"]
    assert [run.name for run in now.todo] == ["feature, seed 0"]
    assert now.foreign == 1


def test_the_same_run_of_another_study_counts(options: StudyOptions, tables: SceneTables, tmp_path: Path) -> None:
    """A new teacher makes a new study, but ``none`` has learnt nothing from it."""
    results, runs = tmp_path / "rows.csv", plan_runs(replace(options, seeds=(0,)), tables)
    add_record(results, filed(runs[0], study="before"))
    assert [run.name for run in standing(runs, results).todo] == ["feature, seed 0"]
    assert {record.study for record in read_records(results)} == {"before", runs[0].identity.study}


def test_a_run_whose_row_says_the_same_in_other_words_is_filed_under_those(
    options: StudyOptions, tables: SceneTables, tmp_path: Path
) -> None:
    results = tmp_path / "rows.csv"
    wordy = replace(FEATURE, overrides=(*FEATURE.overrides, "student.training.distillation.feature.weight=1.0"))
    earlier, later = (plan_runs(replace(options, rows=(NONE, row), seeds=(0,)), tables) for row in (FEATURE, wordy))
    for run in earlier:
        add_record(results, filed(run))
    assert not standing(later, results).todo
    assert {record.row: record.overrides for record in read_records(results)} == {
        "none": (),
        "feature": wordy.overrides,
    }
