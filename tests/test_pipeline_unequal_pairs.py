"""Students that do not go with their teacher's cache, weights of another recipe, splits that nobody can score."""

import re
from pathlib import Path

import pytest
from made_nuscenes import make_nuscenes
from program import Program
from train_world import CPU, SCENES, tiny_detector, tiny_tables

from detectors.catalogue import demo_student, demo_teacher
from detectors.weights import save_weights
from pipeline.recipes import demo
from pipeline.training import seeded_detector, train_with_progress
from scenes.tables import load_tables
from train.initialisation import InitOptions
from train.options import TrainOptions
from train.run import TrainingRun

DETECTOR = "--set=student.detector"
REVERSED = "[" + ", ".join(reversed(demo_student().class_names)) + "]"


@pytest.fixture(scope="module")
def cached(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained teacher's cache of one scene."""
    folder = tmp_path_factory.mktemp("unequal")
    with pytest.MonkeyPatch.context() as monkeypatch:
        program = Program(tiny_world, folder, monkeypatch)
        scene = load_tables(tiny_world, "v1.0-trainval").scene_names("train")[0]
        program.succeeded("cache-teacher", "--untrained", "--scenes", scene)
    return folder


@pytest.fixture
def program(tiny_world: Path, cached: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    return Program(tiny_world, cached, monkeypatch)


def taught(program: Program, *arguments: str) -> tuple[str, ...]:
    """One step of a student of the cached scene."""
    scene = load_tables(program.data, "v1.0-trainval").scene_names("train")[0]
    return ("train-student", "--allow-untrained-teacher", "--scenes", scene, "--max-steps", "1", *arguments)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("--student", "bevformer-tiny"),
            ("student and teacher see different ground", "(-51.2, ", "--set student.detector.grid.extent_m=["),
        ),
        (
            (f"{DETECTOR}.class_names={REVERSED}",),
            (
                "the detector's classes are traffic_cone, pedestrian, ",
                "scored, as car, truck, ",
                "class_names as it is",
            ),
        ),
        (
            ("--distiller", "none", f"{DETECTOR}.class_names=[car, truck]"),
            ("the detector's classes are car, truck; annotations are numbered",),
        ),
        (
            ("--distiller", "temporal-attention", f"{DETECTOR}.encoder.heads=2"),
            ("has 4 heads of 4 points, the student's has 2 heads of 4", "--set student.detector.encoder.heads=4"),
        ),
        (("--init", "nowhere.pth"), ("nowhere.pth: there is no such weights file",)),
        (("--init", "a.pth", "--init-backbone", "b.pth"), ("would both fill the image backbone", "init.parts=[")),
    ],
    ids=["range", "class order", "classes, no cache", "heads", "no file", "two files"],
)
def test_a_student_that_cannot_be_is_told_before_its_first_step(
    program: Program, arguments: tuple[str, ...], told: tuple[str, ...]
) -> None:
    refused = program.refused(*taught(program, "--out", "out/unequal", *arguments))
    assert [words for words in told if words not in refused] == []
    assert not Path("out/unequal/last.pt").exists()


def test_weights_of_another_recipe_are_refused(program: Program) -> None:
    save_weights(seeded_detector(demo_teacher(), 5), Path("teacher.safetensors"))
    refused = program.refused(*taught(program, "--out", "out/other", "--init", "teacher.safetensors"))
    assert "It looks like demo-teacher" in refused
    assert "start some parts from it: --set 'student.training.init.parts=[img_backbone]'" in refused
    assert "It looks like demo-teacher" in program.refused("evaluate", "--checkpoint", "teacher.safetensors")


def test_the_start_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_weights(tiny_detector(seed=5), tmp_path / "start.safetensors")
    options = TrainOptions(steps=1, init=InitOptions(weights=str(tmp_path / "start.safetensors"), parts=("img_neck",)))
    tables = tiny_tables(tmp_path / "world")
    run = TrainingRun(tiny_detector(), tables, SCENES, None, options, tmp_path / "out", CPU)
    train_with_progress("a student", demo(), run, 1)
    said = capsys.readouterr().out
    assert f"Starting from {tmp_path / 'start.safetensors'} (sha256 " in said
    assert " entries of img_neck; " in said
    assert re.search(r"As in a new detector, from no file: \d+ of img_backbone, \d+ of pts_bbox_head", said)


def test_a_score_of_a_split_without_labels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_nuscenes(("scene-0077",), version="v1.0-test")
    made.tables["sample_annotation"], made.tables["instance"] = [], []
    program = Program(made.write(tmp_path / "nuscenes"), tmp_path, monkeypatch)
    save_weights(seeded_detector(demo_student(), 0), tmp_path / "student.safetensors")
    scored = ("--version", "v1.0-test", "--split", "test")
    refused = program.refused("evaluate", "--checkpoint", "student.safetensors", *scored)
    assert "a score was asked for on split 'test' of v1.0-test, which has no annotations" in refused
    assert "nothing to train on: " in program.refused("train-student", "--distiller", "none", *scored)
