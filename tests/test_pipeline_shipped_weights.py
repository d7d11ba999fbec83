"""Weights that come with the program are used where they fit, and told apart where they do not."""

import json
from pathlib import Path

import pytest
from train_world import tiny_detector

from detectors.catalogue import build
from detectors.shipped import FOLDER
from detectors.weights import load_weights, save_weights
from pipeline import shipped_weights
from pipeline.paths import teacher_folder, teacher_weights
from pipeline.recipe import Recipe
from pipeline.recipes import RECIPES, demo, load_recipe
from pipeline.shipped_weights import check_start, finished_teacher, ship, shipped
from scenes.evaluation import TP_ERRORS, Score
from scenes.synthetic.options import GENERATOR_VERSION
from schemas.errors import CheckpointError, RecipeError

NAME = "demo-teacher"
SCORE = Score(0.4, 0.3, dict.fromkeys(TP_ERRORS.values(), 0.5), {}, {}, "val", 400)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_weights(tiny_detector(), tmp_path / "trained.safetensors")
    ship(demo(), tmp_path / "trained.safetensors", {"val": SCORE}, tmp_path / "shipped")
    return tmp_path / "shipped"


def differences(folder: Path, recipe: Recipe) -> list[str]:
    found = shipped(NAME, folder)
    assert found is not None
    return found.differences(recipe.world, recipe.teacher)


def test_weights_fit_the_recipe_they_were_trained_with(folder: Path) -> None:
    assert differences(folder, demo()) == []


def test_fewer_scenes_are_the_same_world(folder: Path) -> None:
    assert differences(folder, load_recipe("demo", ["world.train_scenes=6", "world.val_scenes=2"])) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("world.seed=1", "world.seed: 1 here, 0 there"),
        ("world.image_width=448", "world.image_width: 448 here, 224 there"),
        ("teacher.training.steps=20", "teacher.training.steps: 20 here"),
        ("teacher.detector.decoder.queries=20", "teacher.detector.decoder.queries: 20 here"),
    ],
)
def test_another_world_or_teacher_is_told(folder: Path, change: str, told: str) -> None:
    (line,) = differences(folder, load_recipe("demo", [change]))
    assert line.startswith(told)


def test_another_generator_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped_weights, "GENERATOR_VERSION", GENERATOR_VERSION + 1)
    assert differences(folder, demo()) == [f"generator: {GENERATOR_VERSION + 1} here, {GENERATOR_VERSION} there"]


def test_what_changes_no_number_may_differ(folder: Path) -> None:
    assert differences(folder, load_recipe("demo", ["teacher.training.log_every=1"])) == []


def test_a_recipe_without_a_world_never_fits(folder: Path) -> None:
    assert differences(folder, load_recipe("bevformer-base")) == ["the recipe has no synthetic world"]


def test_exchanged_weights_are_refused(folder: Path) -> None:
    save_weights(tiny_detector(seed=1), folder / f"{NAME}.safetensors")
    with pytest.raises(CheckpointError, match=r"one of them was exchanged.*make demo-teacher"):
        shipped(NAME, folder)


def test_one_file_of_the_two_is_refused(folder: Path) -> None:
    (folder / f"{NAME}.json").unlink()
    with pytest.raises(CheckpointError, match=r"cannot be used: .*Install the program anew"):
        shipped(NAME, folder)


def test_a_foreign_record_is_refused(folder: Path) -> None:
    path = folder / f"{NAME}.json"
    record = json.loads(path.read_text())
    del record["world"]
    path.write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=r"does not describe weights: 'world'"):
        differences(folder, demo())


def test_nothing_shipped_is_no_error(tmp_path: Path) -> None:
    assert shipped(NAME, tmp_path) is None


def test_a_teacher_trained_here_comes_first(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shipped_weights, "shipped", lambda name: shipped(name, folder))
    recipe = demo()
    assert finished_teacher(recipe) == folder / f"{NAME}.safetensors"
    assert finished_teacher(load_recipe("demo", ["world.seed=1"])) is None
    trained_here = teacher_weights(teacher_folder(recipe))
    trained_here.parent.mkdir(parents=True)
    trained_here.touch()
    assert finished_teacher(recipe) == trained_here
    assert finished_teacher(load_recipe("bevformer-base")) is None


def test_a_student_starts_from_shipped_weights_of_its_own_world_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped_weights, "shipped", lambda name: shipped(name, folder))
    start, world = f"shipped:{NAME}", demo().world
    assert world is not None
    check_start(start, world)
    check_start(start, world.model_copy(update={"seed": 1}))
    wider = world.model_copy(update={"image_width": 448})
    for other in (None, "weights.pth"):
        check_start(other, wider)
    with pytest.raises(RecipeError, match=r"world.image_width: 448 here, 224 there.*init.weights=null.*--init FILE"):
        check_start(start, wider)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.safetensors")), ids=lambda path: path.stem)
def test_what_is_shipped_belongs_to_the_shipped_recipes(path: Path) -> None:
    found = shipped(path.stem)
    assert found is not None
    (recipe,) = (made() for name, made in RECIPES.items() if made().teacher.name == path.stem)
    assert found.differences(recipe.world, recipe.teacher) == [], "train it anew: make demo-teacher ARGS=--ship"
    load_weights(build(recipe.teacher.detector), path)
    assert path.stat().st_size < 8 * 2**20
    assert set(found.record["scores"]) == {"tune", "val"}
