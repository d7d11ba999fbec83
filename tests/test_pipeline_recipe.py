"""Recipes: the shipped ones, overriding a value, reading one back, and every way to get one wrong."""

from pathlib import Path

import pytest

from detectors.catalogue import DETECTORS
from pipeline.recipe import CacheRecipe, override, read_recipe, write_recipe
from pipeline.recipes import RECIPES, load_recipe, with_cache, with_distillers, with_teacher_file, with_training
from schemas.errors import RecipeError


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_survives_being_written_and_read(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    write_recipe(recipe, tmp_path)
    assert load_recipe(str(tmp_path / "recipe.yaml")) == recipe
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_caches_what_its_distillers_need(name: str) -> None:
    recipe = load_recipe(name)
    assert "bev" in recipe.cache.features
    assert recipe.student.detector.class_names == recipe.teacher.detector.class_names
    assert recipe.student.detector.grid.extent_m == recipe.teacher.detector.grid.extent_m


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_function_is_a_lab_note(name: str) -> None:
    note = RECIPES[name].__doc__ or ""
    assert "Command:" in note


def test_a_value_is_overridden_by_its_dotted_key() -> None:
    recipe = override(load_recipe("demo"), ["cache.tier=float16", "student.training.optimizer.lr=0.001"])
    assert recipe.cache.tier == "float16"
    assert recipe.student.training.optimizer.lr == 0.001


def test_a_detector_is_chosen_from_the_catalogue_by_name() -> None:
    recipe = override(load_recipe("bevformer-base"), ["student.detector=bevformer-small"])
    assert recipe.student.detector == DETECTORS["bevformer-small"]()


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("cache.tier", "expected dotted.key=value"),
        ("cache.tire=int8", "no 'cache.tire'. Here it knows bev_grid, features, max_objects, temporal_target, tier"),
        ("cash.tier=int8", "no 'cash.tier'. Here it knows cache, name"),
        ("cache.tier.x=int8", "no 'cache.tier.x'"),
        ("cache.tier=int7", "cache.tier: Input should be 'int8', 'float16' or 'archive'"),
        ("cache.tier=[", "not readable as YAML"),
        ("teacher.detector.encoder.heads=7", "must be a multiple of 2 and of the heads (7)"),
        ("student.detector=resnet", "no detector 'resnet' in the catalogue; it has bevformer-base, bevformer-small"),
        ("student.training.steps=0", "student.training.steps: Input should be greater than or equal to 1"),
    ],
)
def test_a_wrong_override_is_told(assignment: str, message: str) -> None:
    with pytest.raises(RecipeError) as refused:
        override(load_recipe("demo"), [assignment])
    assert message in str(refused.value)


def test_an_unknown_recipe_is_told_with_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="Unknown recipe 'dmeo': expected one of demo, demo-start, bevformer-tiny"):
        load_recipe("dmeo")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "Cannot read the recipe"),
        ("name: [", "not readable as YAML"),
        ("name: demo", "teacher: Field required"),
        ("- 1", "not a valid recipe"),
        ("!!python/object/apply:os.system ['true']", "not readable as YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_told(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RecipeError, match=message):
        read_recipe(path)


def test_options_replace_values_of_the_recipe() -> None:
    recipe = load_recipe("demo")
    assert with_training(recipe, "student", 5).student.training.seed == 5
    assert with_training(recipe, "teacher", 5).teacher.training.seed == 5
    assert with_training(recipe, "student", None) == recipe
    assert with_distillers(recipe, ("none",)).student.training.distillation.names == ("none",)
    assert with_distillers(recipe, ()) == recipe
    assert with_cache(recipe, ("bev",), "float16", 20).cache == CacheRecipe(
        features=("bev",), tier="float16", bev_grid=20
    )
    assert with_cache(recipe, (), None, None) == recipe
    assert with_teacher_file(recipe, None) == recipe
    own = with_teacher_file(recipe, "mine.py:load")
    assert (own.teacher.file, own.cache.features) == ("mine.py:load", ())


def test_options_that_cannot_work_are_told() -> None:
    with pytest.raises(RecipeError, match="does not train its teacher"):
        with_training(load_recipe("bevformer-base"), "teacher", 1)
    with pytest.raises(RecipeError, match="Unknown tier 'int4': expected one of int8, float16"):
        with_cache(load_recipe("demo"), (), "int4", None)
    with pytest.raises(RecipeError, match="--distiller takes one or more of none"):
        with_distillers(load_recipe("demo"), ("fitnets",))
