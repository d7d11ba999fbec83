"""What users get wrong, through the command line: told before anything long has run, with what to do instead."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from program import Program
from tiny_world import TINY_OPTIONS

from detectors.weights import save_weights
from pipeline import demo_teacher, missing_cache
from pipeline.dataset import DataChoice
from pipeline.device import open_device
from pipeline.recipes import demo, with_distillers
from pipeline.training import seeded_detector
from scenes.synthetic import write_world
from scenes.tables import load_tables
from schemas.errors import RecipeError

ALLOW = "--allow-untrained-teacher"


@pytest.fixture
def program(tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    return Program(tiny_world, tmp_path, monkeypatch)


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A student's weights, as yet untrained."""
    path = tmp_path / "student.safetensors"
    save_weights(seeded_detector(demo().student.detector, 0), path)
    return str(path)


def cut_short(image: Path) -> None:
    image.write_bytes(image.read_bytes()[:-200])


def shrunk(image: Path) -> None:
    Image.new("RGB", (100, 50)).save(image)


@pytest.mark.parametrize(
    ("damage", "told"), [(Path.unlink, "is missing"), (cut_short, "truncated"), (shrunk, "of 100x50")]
)
def test_a_bad_image_in_the_middle_of_a_run(
    tiny_world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    weights: str,
    damage: Callable[[Path], None],
    told: str,
) -> None:
    shutil.copytree(tiny_world, tmp_path / "nuscenes")
    program = Program(tmp_path / "nuscenes", tmp_path, monkeypatch)
    program.succeeded("cache-teacher", "--untrained")
    tables = load_tables(program.data, "v1.0-trainval")
    frames = {split: tables.frames(tables.scene_names(split)[-1])[-1] for split in ("train", "val")}
    for frame in frames.values():
        damage(program.data / frame.camera_paths[3])

    for printed, split in (
        (program.refused("cache-teacher", "--untrained", "--cache", "other"), "train"),
        (program.refused("train-student", ALLOW, "--set", "student.training.clips.mode=consecutive"), "train"),
        (program.refused("evaluate", "--checkpoint", weights, "--out", "score"), "val"),
    ):
        assert f"sample {frames[split].sample_token} ({frames[split].scene_name}), CAM_BACK: " in printed
        assert told in printed
        assert "Restore the file" in printed
    assert "score.json" not in [path.name for path in Path("score").iterdir()]


def test_scenes_of_one_frame_without_can_bus_run_with_one_warning_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    options = TINY_OPTIONS.model_copy(update={"frames_per_scene": 1, "val_scenes": 0, "tune_scenes": 0})
    write_world(options, tmp_path / "nuscenes", workers=1, on_scene=lambda _: None)
    shutil.rmtree(tmp_path / "nuscenes" / "can_bus")
    program = Program(tmp_path / "nuscenes", tmp_path, monkeypatch)
    for command in (("cache-teacher", "--untrained"), ("train-student", ALLOW)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "bev"):
            program.succeeded(*command)
        one_frame, no_can_bus = [record.getMessage() for record in caplog.records]
        assert "2 of 2 scenes of one frame" in one_frame
        assert "2 of 2 scenes without CAN bus" in no_can_bus


def test_a_cache_of_other_data_is_told_as_such(program: Program, tmp_path: Path) -> None:
    program.succeeded("cache-teacher", "--untrained")
    options = TINY_OPTIONS.model_copy(update={"train_scenes": 3, "val_scenes": 0, "frames_per_scene": 2})
    write_world(options, tmp_path / "other", workers=1, on_scene=lambda _: None)
    other = Program(tmp_path / "other", tmp_path, pytest.MonkeyPatch())
    refused = other.refused("train-student", ALLOW)
    assert "does not fit this training run: dataset tables (sha256)" in refused
    assert not list(Path("out/demo").glob("student*"))
    assert "dataset.tables_sha256" in other.refused("cache-teacher", "--untrained")


def test_a_cache_of_another_split_is_told(program: Program) -> None:
    program.succeeded("cache-teacher", "--untrained")
    assert "was made for split train" in program.refused("train-student", ALLOW, "--split", "val")


@pytest.mark.parametrize("value", ["", ",", "bev,,bev_scale", "bev,bev"])
def test_a_list_of_nothing_or_of_twins_is_not_taken_for_everything(program: Program, value: str) -> None:
    for command, option in (
        ("cache-teacher", "--arrays"),
        ("cache-teacher", "--scenes"),
        ("train-student", "--distiller"),
    ):
        assert f"{option} {value!r}: expected names separated by commas" in program.refused(command, option, value)


def test_a_file_where_a_folder_is_wanted(program: Program, weights: str) -> None:
    file = program.folder / "file"
    file.write_text("in the way")
    refused = program.refused("cache-teacher", "--untrained", "--cache", "file")
    assert "Expected a folder, or nothing yet, at file" in refused
    assert "file is a file; a teacher cache is a folder" in program.refused("train-student", "--cache", "file")
    for command in ("demo-teacher", "train-student"):
        more = ("--distiller", "none") if command == "train-student" else ()
        refused = program.refused(command, "--out", "file", *more)
        assert "opening the training folder failed: file is a file, expected a folder" in refused
        assert "OUT=" in refused
    refused = program.refused("evaluate", "--checkpoint", weights, "--out", "file")
    assert "The operating system refused: File exists (file)" in refused
    assert "frames in" not in refused, "told before the detector runs"
    assert file.read_text() == "in the way"


def test_a_published_teacher_has_no_weights_to_train(program: Program) -> None:
    refused = program.refused("evaluate", "--recipe", "bevformer-base", "--model", "teacher", sets=())
    assert "recipe 'bevformer-base' takes published ones, so give CHECKPOINT=" in refused
    assert "demo-teacher" not in refused


def test_weights_of_another_detector_are_not_scored_in_part(program: Program, weights: str) -> None:
    refused = program.refused("evaluate", "--model", "teacher", "--checkpoint", weights)
    assert "name the recipe that they are of with RECIPE=" in refused
    assert "--allow-partial" not in refused


def test_students_that_were_trained_otherwise_are_listed(program: Program, weights: str) -> None:
    other = program.folder / "out" / "demo" / "student-pkd-seed7" / "weights.safetensors"
    other.parent.mkdir(parents=True)
    other.write_bytes(Path(weights).read_bytes())
    refused = program.refused("evaluate", "--set", "student.training.seed=3")
    assert "run `make train-student` first, or give CHECKPOINT=/path/to/file." in refused
    assert "There are out/demo/student-pkd-seed7/weights.safetensors." in refused


def test_what_a_student_may_inherit_is_listed(program: Program) -> None:
    refused = program.refused("train-student", "--set", "student.training.distillation.inherit=all")
    assert "expected true, false or a list of bev_queries, positions, history_fusion" in refused
    assert "got 'all'" in refused


def test_the_recipe_stands_beside_a_score(program: Program, weights: str) -> None:
    program.succeeded("evaluate", "--checkpoint", weights, "--out", "score")
    files = {"recipe.yaml", "score.json", "scores.csv", "submission.json"}
    assert {path.name for path in Path("score").iterdir()} == files


def test_a_teacher_that_comes_with_the_program_is_scored_in_the_folder_of_its_training(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = program.refused("evaluate", "--model", "teacher")
    assert "No teacher weights at out/demo/teacher/teacher.safetensors: run `make demo-teacher` first" in refused
    program.succeeded("demo-teacher", "--out", "elsewhere", "--max-steps", "2")
    shipped = Path("elsewhere/teacher.safetensors")
    monkeypatch.setattr("pipeline.evaluate.finished_teacher", lambda _recipe: shipped)
    assert f"demo-teacher: {shipped}: " in program.succeeded("evaluate", "--model", "teacher")
    assert Path("out/demo/teacher/evaluation-teacher/score.json").exists()


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match=r"--device cuda: this machine has no usable CUDA device; use --device cpu"):
        open_device("cuda")
    for name in ("tpu", "meta"):
        with pytest.raises(RecipeError, match=rf"--device {name}: expected cpu, cuda or cuda:N"):
            open_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert open_device("cuda:1").index == 1
    with pytest.raises(RecipeError, match=r"--device cuda:2: this machine has cuda:0 to cuda:1\."):
        open_device("cuda:2")


def test_the_demo_teacher_never_sees_the_split_that_is_cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    choices: list[DataChoice] = []
    monkeypatch.setattr(demo_teacher, "finished_teacher", lambda _recipe: None)
    monkeypatch.setattr(demo_teacher, "train_demo_teacher", lambda _recipe, choice, *_: choices.append(choice))
    asked = DataChoice(Path("data"), "v1.0-mini", "mini_val", ("scene-0103",))
    demo_teacher.teacher_checkpoint(demo(), asked, torch.device("cpu"))
    assert choices == [DataChoice(Path("data"), "v1.0-mini")]


def test_the_student_makes_what_its_cache_lacks(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def succeed(command: list[str]) -> int:
        commands.append(command[1:])
        return 0

    monkeypatch.setattr(missing_cache, "_status_of", succeed)
    first, _ = load_tables(program.data, "v1.0-trainval").scene_names("train")
    missing_cache.make_missing_cache(with_distillers(demo(), ("none",)), [], ())
    assert commands == [], "a student without distillation needs no teacher"
    missing_cache.make_missing_cache(demo(), ["--recipe", "demo"], ())
    assert commands == [["-m", "pipeline", "cache-teacher", "--recipe", "demo"]]

    program.succeeded("cache-teacher", "--untrained", "--scenes", first)
    missing_cache.make_missing_cache(demo(), [], (first,))
    assert len(commands) == 1, "the scene asked for is there"
    missing_cache.make_missing_cache(demo(), [], ())
    assert len(commands) == 2, "an interrupted teacher stage goes on"
    program.succeeded("cache-teacher", "--untrained")
    missing_cache.make_missing_cache(demo(), [], ())
    assert len(commands) == 2, "the cache is complete"
