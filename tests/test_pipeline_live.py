"""``verify-cache --live``: the teacher run again on cached frames, and told when it does not compute what is cached."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from cache_no_fsync import no_fsync
from program import SMALL, Program

from cache.reading import open_cache
from pipeline.cache_teacher import cache_teacher
from pipeline.dataset import DataChoice
from pipeline.live_fidelity import stage_of_cache, steps_to_compare, verify_live
from pipeline.recipe import as_yaml, override, read_recipe
from pipeline.recipes import demo
from pipeline.teacher_stage.engine import EngineChoice
from pipeline.teacher_stage.job import StageChoice, StageOptions
from pipeline.teacher_stage.teacher import WeightsSource
from scenes.tables import load_tables
from schemas.errors import CacheError, RecipeError

__all__ = ["no_fsync"]

UNTRAINED = WeightsSource(None, untrained=True)


@pytest.fixture(scope="module")
def folder(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of both training scenes of a copy of the tiny world, in a working directory of its own."""
    path = tmp_path_factory.mktemp("live")
    shutil.copytree(tiny_world, path / "world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        assert cache_teacher(stage_in(path), EngineChoice()) == 0
    return path


@pytest.fixture
def stage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> StageChoice:
    monkeypatch.chdir(folder)
    return stage_in(folder)


def stage_in(path: Path) -> StageChoice:
    assignments = [text.removeprefix("--set=") for text in SMALL]
    recipe = override(demo(), [*assignments, "version=v1.0-trainval"])
    return StageChoice(recipe, UNTRAINED, DataChoice(path / "world"), path / "cache", options=StageOptions(threads=1))


def test_the_machine_that_made_a_cache_computes_its_bytes(
    stage: StageChoice, capsys: pytest.CaptureFixture[str]
) -> None:
    fidelity = verify_live(stage, 5)
    printed = capsys.readouterr().out
    assert "verify-cache --live: 5/5 frames in" in printed
    assert "Cached against live, the first frames of 2 scenes (5 frames)" in " ".join(printed.split())
    assert printed.count("100.0000%") == 7
    assert "This machine computes the very bytes that the cache holds." in printed
    assert fidelity.frames == 5
    assert fidelity.boxes is not None
    assert fidelity.features[0].centred_error is not None
    assert 0 < fidelity.features[0].centred_error < 0.03


def test_it_measures_what_caching_measured(stage: StageChoice) -> None:
    """The first four frames of the first scene, once from the writer's memory and once from the disk."""
    cache = open_cache(stage.cache_path)
    first = replace(stage, data=replace(stage.data, scenes=cache.scene_names[:1]))
    assert verify_live(first, 4) == cache.fidelity()


def test_an_image_that_has_changed_since_is_noticed(
    stage: StageChoice, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(stage.cache_path.parent / "world", tmp_path / "world")
    data = replace(stage.data, data=tmp_path / "world")
    name = open_cache(stage.cache_path).scene_names[1]
    brighten_second_front_image(tmp_path / "world", name)
    message = (
        rf"does not hold what this teacher computes: scene {name}, step 1, feature bev: \d+ of \d+ values are more "
        r"than 1\.05 quantisation levels from the live ones, at most [\d.e+]+\. .*"
        r"made with: .*threads 1.*make cache-teacher CACHE=.*cache-2"
    )
    with pytest.raises(CacheError, match=message):
        verify_live(replace(stage, data=data), 8)
    printed = capsys.readouterr().out
    assert "Stored against quantised now" in printed, "the tables are told all the same"
    assert "very bytes" not in printed


def test_frames_before_the_change_are_right(stage: StageChoice, tmp_path: Path) -> None:
    shutil.copytree(stage.cache_path.parent / "world", tmp_path / "world")
    brighten_second_front_image(tmp_path / "world", open_cache(stage.cache_path).scene_names[1])
    assert verify_live(replace(stage, data=replace(stage.data, data=tmp_path / "world")), 2).frames == 2


def test_another_form_is_refused_with_both_values(stage: StageChoice) -> None:
    other = replace(stage, recipe=override(stage.recipe, ["cache.tier=float16"]))
    with pytest.raises(CacheError, match=r"tier: int8 in the cache, float16 now\nName what it was made with: RECIPE="):
        verify_live(other, 1)


def test_a_damaged_frame_is_named(stage: StageChoice, tmp_path: Path) -> None:
    shutil.copytree(stage.cache_path, tmp_path / "cache")
    shard = open_cache(tmp_path / "cache").shard(open_cache(stage.cache_path).scene_names[0], "bev")
    with Path(str(shard.path)).open("r+b") as file:
        file.seek(int(shard.offsets[1]) + 7)
        file.write(b"\x55\x55\x55")
    with pytest.raises(CacheError, match=r"the cache is damaged: scene .*, array bev, step 1"):
        verify_live(replace(stage, cache_path=tmp_path / "cache"), 8)


def test_a_cache_without_the_scenes_asked_for_is_refused(stage: StageChoice, tmp_path: Path) -> None:
    cached, missing = open_cache(stage.cache_path).scene_names
    part = replace(stage, cache_path=tmp_path / "cache", data=replace(stage.data, scenes=(cached,)))
    cache_teacher(part, EngineChoice())
    with pytest.raises(CacheError, match=r"holds none of the scenes: nothing to compare with the teacher"):
        verify_live(replace(part, data=replace(stage.data, scenes=(missing,))), 1)


def test_a_teacher_that_fails_today_is_told_by_step(stage: StageChoice, monkeypatch: pytest.MonkeyPatch) -> None:
    cacheable = "detectors.bevformer.BEVFormer.cacheable"
    monkeypatch.setattr(cacheable, lambda *_: {"bev": torch.full((50, 50, 64), float("nan"))})
    with pytest.raises(CacheError, match=r"scene scene-\d+, step 0: "):
        verify_live(stage, 1)


def test_the_command_finds_recipe_split_and_weights_beside_the_cache(
    stage: StageChoice, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Program(folder / "world", folder, monkeypatch)
    arguments = ("verify-cache", "--cache", str(stage.cache_path), "--threads", "1")
    assert "very bytes" in program.succeeded(*arguments, "--live", "2")
    assert "very bytes" not in program.succeeded(*arguments)


def test_the_run_of_a_cache_is_known_from_what_lies_beside_it(stage: StageChoice) -> None:
    found = stage_of_cache(stage.cache_path, WeightsSource(None), stage.data.data, "cpu", stage.options)
    assert found == replace(stage, data=DataChoice(stage.data.data, "v1.0-trainval", "train"))


def test_named_weights_are_taken_as_they_are(stage: StageChoice, tmp_path: Path) -> None:
    weights = WeightsSource(tmp_path / "weights.pth", allow_partial=True)
    assert stage_of_cache(stage.cache_path, weights, None, "cpu", stage.options).weights == weights


def test_a_trained_teacher_is_found_where_its_recipe_left_it(
    stage: StageChoice, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(stage.cache_path, tmp_path / "cache")
    manifest = open_cache(stage.cache_path).manifest
    trained = manifest.model_copy(update={"teacher": manifest.teacher.model_copy(update={"untrained": False})})
    monkeypatch.setattr("pipeline.live_fidelity.open_cache", lambda _: SimpleNamespace(manifest=trained))
    absent = stage_of_cache(tmp_path / "cache", WeightsSource(None), None, "cpu", stage.options)
    assert absent.weights == WeightsSource(None)
    left = Path("out/demo/teacher/teacher.safetensors")
    left.parent.mkdir(parents=True)
    left.touch()
    found = stage_of_cache(tmp_path / "cache", WeightsSource(None), None, "cpu", stage.options)
    assert found.weights == WeightsSource(left)
    recipe = override(read_recipe(tmp_path / "cache" / "recipe.yaml"), ["teacher.file=mine.py:mine"])
    (tmp_path / "cache" / "recipe.yaml").write_text(as_yaml(recipe))
    of_a_file = stage_of_cache(tmp_path / "cache", WeightsSource(None), None, "cpu", stage.options)
    assert of_a_file.weights == WeightsSource(None), "the demo's weights are none of somebody else's teacher"


def test_without_a_recipe_beside_it_the_run_is_unknown(stage: StageChoice, tmp_path: Path) -> None:
    shutil.copytree(stage.cache_path, tmp_path / "cache")
    (tmp_path / "cache" / "recipe.yaml").unlink()
    with pytest.raises(RecipeError, match=r"Cannot read the recipe .*recipe\.yaml"):
        stage_of_cache(tmp_path / "cache", UNTRAINED, None, "cpu", StageOptions())


@pytest.mark.parametrize(
    ("lengths", "frames", "expected"),
    [
        ([40] * 10, 1, {0: 1}),
        ([40] * 10, 4, {0: 4}),
        ([40] * 10, 5, {0: 3, 5: 2}),
        ([40] * 10, 12, {0: 4, 3: 4, 6: 4}),
        ([40] * 2, 12, {0: 6, 1: 6}),
        ([2, 40, 40], 12, {0: 2, 1: 5, 2: 5}),
        ([2, 3], 12, {0: 2, 1: 3}),
        ([0, 3], 2, {1: 2}),
        ([], 5, {}),
    ],
)
def test_frames_are_the_first_of_scenes_spread_over_the_cache(
    lengths: list[int], frames: int, expected: dict[int, int]
) -> None:
    found = steps_to_compare({f"scene-{number}": length for number, length in enumerate(lengths)}, frames)
    assert found == {f"scene-{number}": steps for number, steps in expected.items()}


def brighten_second_front_image(world: Path, scene_name: str) -> None:
    """Replace one image by a brighter one of the same size."""
    tables = load_tables(world, "v1.0-trainval", world.parent / "index")
    path = world / tables.frames(scene_name)[1].camera_paths[0]
    image = cv2.imread(str(path))
    assert image is not None
    assert cv2.imwrite(str(path), np.clip(image.astype(np.int64) + 60, 0, 255).astype(np.uint8))
