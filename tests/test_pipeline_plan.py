"""``plan`` through the command line: what it prints, how each number is known, and that it writes nothing."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from program import SMALL, Program
from typer.testing import CliRunner

from pipeline.__main__ import app
from pipeline.dataset import DataChoice
from pipeline.recipes import load_recipe
from pipeline.teacher_stage.frame_counts import count_frames
from pipeline.teacher_stage.made_up_frame import NUSCENES_SIZE_WH, made_up_inputs
from schemas.errors import RecipeError

GB = 10**9


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    set_free(monkeypatch, 10_000 * GB)


def set_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr("pipeline.teacher_stage.plan.shutil.disk_usage", lambda _: SimpleNamespace(free=free))


def planned(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, ["plan", *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == status, done.output
    return " ".join(done.output.split())


@pytest.mark.usefixtures("roomy")
def test_the_whole_of_nuscenes_without_nuscenes() -> None:
    printed = planned("--recipe", "bevformer-base", "--time-frames", "0")
    assert "28,130 frames in 700 scenes │ published: train of v1.0-trainval" in printed
    assert re.search(r"bev │ y 200 × x 200 × channel 256 │ int8 │ 10,240,004 │ 288 GB", printed)
    assert re.search(r"int8 \(chosen\) │ 521 GB │ yes", printed)
    assert "seconds" not in printed
    assert printed.endswith("It fits.")


def test_what_would_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    set_free(monkeypatch, 300 * GB)
    printed = planned("--recipe", "bevformer-base", "--time-frames", "0", status=1)
    assert "needs 521 GB for 28130 frames in 700 scenes, and its disk has 300 GB free" in printed
    assert "--bev-grid 100: 143 GB" in printed
    assert re.search(r"--arrays bev,[a-z_,]+: 2\d\d GB", printed)


@pytest.mark.usefixtures("roomy")
def test_a_real_scene_is_counted_and_timed(tiny_world: Path, tmp_path: Path) -> None:
    before = sorted(path for path in tiny_world.rglob("*"))
    printed = planned("--data", str(tiny_world), *SMALL, "--time-frames", "1", "--workers", "2", "--threads", "1")
    assert "8 frames in 2 scenes │ counted: train in" in printed
    known = r"measured: frames of scene-\d+, random weights, cpu, 1 threads, float32; median of 1"
    assert re.search(rf"teacher, a frame │ [\d.]+ m?s │ {known}", printed)
    assert re.search(r"8 frames of .* free Timing 1 frame, after one to warm up \(--time-frames 0", printed)
    assert "images, a frame" in printed
    assert "on 2 such devices" in printed
    assert list(tmp_path.iterdir()) == [], "nothing is written, not even an index of the tables"
    assert sorted(path for path in tiny_world.rglob("*")) == before


@pytest.mark.usefixtures("roomy")
def test_the_embedded_world_need_not_be_there(tmp_path: Path) -> None:
    printed = planned(*SMALL, "--time-frames", "1")
    assert "3,200 frames in 160 scenes │ the recipe's world, to be made" in printed
    assert "black images, as there are no data" in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("roomy")
def test_a_number_of_frames_may_be_asked_for(tiny_world: Path) -> None:
    printed = planned("--data", str(tiny_world), *SMALL, "--frames", "28130", "--time-frames", "1")
    assert "28,130 frames in 700 scenes │ as asked" in printed
    assert "measured: frames of scene-0001" in printed


def test_scenes_that_are_there_already_cost_nothing(
    tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Program(tiny_world, tmp_path, monkeypatch)
    program.succeeded("cache-teacher", "--untrained", "--scenes", "scene-0001")
    printed = program.succeeded("plan", "--time-frames", "0")
    assert "to be cached │ 4 frames in 1 scenes" in printed
    assert "there already │ 4 frames in 1 scenes" in printed
    printed = program.succeeded("plan", "--time-frames", "0", "--tier", "float16")
    assert "cache-teacher would refuse to add to it" in printed
    assert "to be cached │ 8 frames in 2 scenes" in printed


@pytest.mark.usefixtures("roomy")
def test_a_coarser_grid_and_fewer_arrays_cost_less() -> None:
    asked = ("--recipe", "bevformer-base", "--time-frames", "0")
    assert "72.2 GB │ yes" in planned(*asked, "--arrays", "bev", "--bev-grid", "100")


@pytest.mark.usefixtures("roomy")
def test_a_teacher_of_ones_own_is_planned_alike() -> None:
    toy = Path(__file__).resolve().parent.parent / "docs" / "toy_lss_teacher.py"
    printed = planned("--teacher", f"{toy}:toy_lss", "--time-frames", "1")
    assert "heatmap" in printed
    assert "teacher, a frame" in printed


@pytest.mark.usefixtures("roomy")
def test_compression_is_measured_where_weights_and_images_are_real(program_with_teacher: Program) -> None:
    printed = program_with_teacher.succeeded("plan", "--checkpoint", "teacher/teacher.safetensors", "--tier", "archive")
    assert re.search(r"zstd leaves \d+%, measured on the timed frames", printed)
    assert "assumed" in program_with_teacher.succeeded("plan", "--tier", "archive")


@pytest.fixture
def program_with_teacher(tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    program = Program(tiny_world, tmp_path, monkeypatch)
    program.succeeded("demo-teacher", "--out", "teacher")
    return program


def test_numbers_that_nobody_knows() -> None:
    recipe = load_recipe("bevformer-base")
    with pytest.raises(RecipeError, match=r"how many frames v1.0-trainval/mine has: .* DATA=.*--frames 28130"):
        count_frames(recipe, DataChoice(split="mine"), None, None)
    with pytest.raises(RecipeError, match=r"how many frames single scenes of v1.0-trainval/train has"):
        count_frames(recipe, DataChoice(scenes=("scene-0061",)), None, None)
    with pytest.raises(RecipeError, match=r"without tables only v1.0-trainval/train, v1.0-trainval/val are known"):
        count_frames(load_recipe("demo"), DataChoice(split="train_detect"), None, None)


def test_the_worlds_own_splits() -> None:
    counts = count_frames(load_recipe("demo"), DataChoice(split="val"), None, None)
    assert sum(counts.lengths.values()) == 400


@pytest.mark.parametrize(
    ("version", "split", "scenes", "frames"), [("v1.0-mini", None, 8, 323), ("v1.0-trainval", "val", 150, 6019)]
)
def test_published_counts(version: str, split: str | None, scenes: int, frames: int) -> None:
    counts = count_frames(load_recipe("bevformer-base"), DataChoice(version=version, split=split), None, None)
    assert (len(counts.lengths), sum(counts.lengths.values())) == (scenes, frames)
    assert counts.step_axis == max(counts.lengths.values())


def test_a_made_up_frame_is_what_a_real_one_would_be() -> None:
    preprocessing = load_recipe("bevformer-base").teacher.detector.preprocessing
    inputs = made_up_inputs(preprocessing, NUSCENES_SIZE_WH, 0)
    assert inputs.images.shape == (6, 3, *preprocessing.padded_hw(900, 1600))
    ahead = inputs.image_from_lidar @ [0.0, 20.0, 0.0, 1.0]
    front = ahead[0, :2] / ahead[0, 2]
    assert ahead[0, 2] == pytest.approx(19.5)
    assert front[0] == pytest.approx(800)
    assert 400 < front[1] < 450, "level with the LiDAR: a little above the middle"
    assert ahead[3, 2] < 0, "behind the rear camera"
