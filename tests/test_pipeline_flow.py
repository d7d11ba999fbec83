"""Both stages through the command line, on a tiny synthetic world: teacher, cache, student, official score."""

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from program import SMALL, Program

from cache.reading import open_cache
from detectors.bevformer import BEVFormer
from pipeline.recipes import demo
from scenes.frame_stream import stream_frames
from scenes.tables import load_tables
from schemas.frames import CameraInputs, Frame
from schemas.preprocessing import Preprocessing
from train.run_folder import open_run_folder


@pytest.fixture
def program(tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    return Program(tiny_world, tmp_path, monkeypatch)


@pytest.fixture
def own_world(tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """A program on a copy of the world, for tests that damage it."""
    copy = tmp_path / "nuscenes"
    shutil.copytree(tiny_world, copy)
    return Program(copy, tmp_path, monkeypatch)


def metrics(folder: Path) -> list[dict[str, object]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{key: json.loads(line)[key] for key in ("step", "loss", "terms", "grad_norm")} for line in lines]


def test_the_whole_flow_from_ground_truth_to_a_score(program: Program) -> None:
    printed = program.succeeded("cache-teacher")
    assert "demo-teacher: 2 steps done" in printed
    assert "scenes │ 2 of 2" in printed
    assert "cache-teacher: 0/0 frames" in program.succeeded("cache-teacher"), "finished scenes are kept"

    printed = program.succeeded("train-student")
    assert "NDS" in printed
    student = Path("out/demo/student-fd3d+pkd+unidistill-seed0")
    assert [line["step"] for line in metrics(student)] == [1, 2, 3, 4]
    score = json.loads((student / "evaluation" / "score.json").read_text())
    assert score["samples"] == 8

    assert "NDS" in program.succeeded("evaluate", "--model", "teacher")


def test_a_student_trains_without_the_teacher(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    program.succeeded("cache-teacher")
    shutil.rmtree("out/demo/teacher")
    monkeypatch.setitem(sys.modules, "pipeline.cache_teacher", None)
    monkeypatch.setitem(sys.modules, "pipeline.demo_teacher", None)
    student = demo().student.detector
    construct = BEVFormer.__init__

    def student_only(self: BEVFormer, config: object) -> None:
        assert config == student, "a detector other than the student was built"
        construct(self, config)

    monkeypatch.setattr(BEVFormer, "__init__", student_only)
    assert "NDS" in program.succeeded("train-student")


def test_a_stopped_student_goes_on_loss_by_loss(program: Program) -> None:
    program.succeeded("cache-teacher", "--untrained")
    allow = "--allow-untrained-teacher"
    program.succeeded("train-student", allow, "--out", "whole")
    program.succeeded("train-student", allow, "--out", "halves", "--max-steps", "2")
    program.succeeded("train-student", allow, "--out", "halves")
    assert metrics(Path("halves")) == metrics(Path("whole"))


def test_scenes_narrow_both_stages(program: Program) -> None:
    first, second = load_tables(program.data, "v1.0-trainval").scene_names("train")
    program.succeeded("cache-teacher", "--untrained", "--scenes", first)
    assert open_cache(Path("out/demo/teacher-cache")).scene_names == (first,)
    refused = program.refused("train-student", "--allow-untrained-teacher")
    assert second in refused
    assert "make cache-teacher" in refused
    printed = program.succeeded("cache-teacher", "--untrained", "--scenes", second)
    assert "scenes │ 1 of 1, and 1 more" in printed
    assert "frames │ 8 │" in printed, "the size beside it is that of the whole cache"
    assert "on 1 scenes" in program.succeeded("train-student", "--allow-untrained-teacher", "--scenes", first)


def test_an_untrained_teacher_must_be_asked_for_twice(program: Program) -> None:
    program.succeeded("cache-teacher", "--untrained")
    assert "--allow-untrained-teacher" in program.refused("train-student")


def test_a_cache_of_another_teacher_is_refused_field_by_field(program: Program) -> None:
    program.succeeded("cache-teacher", "--untrained")
    refused = program.refused("cache-teacher", "--untrained", sets=(*SMALL, "--set=teacher.detector.decoder.points=2"))
    assert "teacher.architecture.decoder.points: 4 in the cache, 2 now" in refused


def test_a_missing_image_fails_its_scene_and_no_other(own_world: Program) -> None:
    tables = load_tables(own_world.data, "v1.0-trainval")
    first, second = tables.scene_names("train")
    torn = own_world.data / tables.frames(first)[2].camera_paths[3]
    hidden = torn.rename(torn.with_suffix(".hidden"))

    refused = own_world.refused("cache-teacher", "--untrained")
    assert tables.frames(first)[2].sample_token in refused
    assert torn.name in refused
    assert open_cache(Path("out/demo/teacher-cache")).scene_names == (second,)

    hidden.rename(torn)
    own_world.succeeded("cache-teacher", "--untrained")
    assert open_cache(Path("out/demo/teacher-cache")).scene_names == (first, second)


def test_ctrl_c_keeps_finished_scenes_and_the_same_command_goes_on(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = load_tables(program.data, "v1.0-trainval").scene_names("train")

    def interrupted(
        frames: Sequence[Frame], data_root: Path, preprocessing: Preprocessing, threads: int
    ) -> Iterator[CameraInputs]:
        for number, inputs in enumerate(stream_frames(frames, data_root, preprocessing)):
            if frames[0].scene_name == second and number == 2:
                raise KeyboardInterrupt
            yield inputs

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.teacher_stage.scene.stream_frames", interrupted)
        assert "Finished scenes are kept; run the same command" in program.refused("cache-teacher", "--untrained")
    assert open_cache(Path("out/demo/teacher-cache")).scene_names == (first,)
    assert "(1 are there already)" in program.succeeded("cache-teacher", "--untrained")
    assert open_cache(Path("out/demo/teacher-cache")).scene_names == (first, second)


def test_a_disk_that_cannot_hold_the_cache_is_told_before_anything_runs(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.teacher_stage.plan.shutil.disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    refused = program.refused("cache-teacher", "--untrained")
    assert "MB for 8 frames in 2 scenes, and its disk has 1 MB free" in refused
    assert "--arrays bev" in refused
    assert not Path("out/demo/teacher-cache").exists()


def test_pictures_of_a_cache(program: Program) -> None:
    program.succeeded("cache-teacher", "--untrained")
    assert "untrained" in program.succeeded("view-cache", "--out", "pictures")
    pictures = sorted(Path("pictures").glob("*-boxes.png"))
    assert len(pictures) == 4
    assert all(picture.stat().st_size > 10_000 for picture in pictures)


def test_weights_can_be_given_back_as_a_checkpoint(program: Program) -> None:
    program.succeeded("demo-teacher", "--out", "teacher")
    assert "entries matched" in program.succeeded("cache-teacher", "--checkpoint", "teacher/teacher.safetensors")


def test_a_checkpoint_of_another_architecture_is_refused(program: Program) -> None:
    program.succeeded("demo-teacher", "--out", "teacher")
    sets = (*SMALL, "--set=teacher.detector.encoder.layers=2")
    refused = program.refused("cache-teacher", "--checkpoint", "teacher/teacher.safetensors", sets=sets)
    assert "encoder.layers.1" in refused


def test_every_kind_of_missing_teacher_is_told(program: Program) -> None:
    refused = program.refused("cache-teacher", "--recipe", "bevformer-tiny", sets=())
    assert "has no weights" in refused
    assert "CHECKPOINT=" in refused
    assert "exclude each other" in program.refused("cache-teacher", "--untrained", "--checkpoint", "weights.pth")
    assert "does not train its teacher" in program.refused("demo-teacher", "--recipe", "bevformer-tiny", sets=())


def test_a_data_directory_that_is_not_nuscenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(tmp_path / "nowhere", tmp_path, monkeypatch)
    assert "there is no directory" in program.refused("cache-teacher", "--untrained")
    (tmp_path / "nowhere").mkdir()
    assert "is not a nuScenes directory" in program.refused("cache-teacher", "--untrained")


def test_a_cache_that_is_not_there(program: Program) -> None:
    assert "out/demo/teacher-cache" in program.refused("train-student")


def test_two_students_in_one_folder(program: Program) -> None:
    program.succeeded("cache-teacher", "--untrained")
    with open_run_folder(Path("busy")):
        assert "another training run" in program.refused("train-student", "--allow-untrained-teacher", "--out", "busy")
