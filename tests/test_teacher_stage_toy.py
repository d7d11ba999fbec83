"""The toy of docs/bring_your_own_teacher.md works, and the document says what is true."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from program import SMALL, Program
from safetensors.torch import save_file

from cache.reading import open_cache
from pipeline.teacher_stage.file_teacher import open_file_teacher
from pipeline.teacher_stage.made_up_frame import made_up_inputs
from pipeline.teacher_stage.network import DecodesBev, Inheritable, TeacherNetwork
from schemas.features import FeatureSpec
from schemas.frames import CameraInputs

CPU = torch.device("cpu")
TOY = Path(__file__).resolve().parent.parent / "docs" / "toy_lss_teacher.py"


@pytest.fixture(scope="module")
def toy() -> TeacherNetwork:
    return open_file_teacher(f"{TOY}:toy_lss", None, CPU).network


@pytest.mark.parametrize("camera", [0, 2, 3])
@pytest.mark.parametrize("depth_bin", [3, 20])
def test_a_bright_pixel_lands_in_its_cell(toy: TeacherNetwork, camera: int, depth_bin: int) -> None:
    module = sys.modules["teacher_file_toy_lss_teacher"]
    inputs = made_up_inputs(toy.preprocessing, (1600, 900), 0)
    row, col, hw = 26, 40, (57, 100)
    cells = module.cells_of_rays(inputs.image_from_lidar, hw, toy.grid)
    depth = torch.zeros(6, len(module.DEPTHS_M), *hw)
    depth[:, depth_bin] = 1
    context = torch.zeros(6, 2, *hw)
    context[camera, 1, row, col] = 5.0
    bev = module.splat(depth, context, cells, toy.grid)

    distance = 1.0 + depth_bin
    pixel = np.array([(col + 0.5) * 8 / 0.5, (row + 0.5) * 8 / 0.5, 1.0])  # of the recorded image
    in_camera = np.linalg.inv(inputs.frame.intrinsics[camera]) @ pixel * distance
    x, y, z, _ = inputs.frame.lidar_from_camera[camera] @ [*in_camera, 1.0]
    assert -2.5 < z < 1.5
    cell_x, cell_y = toy.grid.cell_m
    lit = torch.nonzero(bev)
    assert lit.tolist() == [[1, int((y + 32) // cell_y), int((x + 32) // cell_x)]]
    assert bev.sum() == 5.0


def test_the_toy_sees_different_frames_differently(toy: TeacherNetwork) -> None:
    black = made_up_inputs(toy.preprocessing, (320, 180), 0)
    grey = CameraInputs(black.frame, np.ones_like(black.images), black.image_from_lidar)
    with torch.inference_mode():
        first, second = (toy.features(inputs, None)[0] for inputs in (black, grey))
    assert (first["bev"] - second["bev"]).abs().mean() > 0.001
    assert 0 < first["heatmap"].min() < first["heatmap"].max() < 1


def test_the_toy_takes_a_checkpoint(toy: TeacherNetwork, tmp_path: Path) -> None:
    weights = {name: torch.zeros_like(tensor) for name, tensor in toy.state_dict().items()}
    save_file(weights, tmp_path / "toy.safetensors")
    loaded = open_file_teacher(f"{TOY}:toy_lss", tmp_path / "toy.safetensors", CPU).network
    assert not any(tensor.any() for tensor in loaded.state_dict().values())


def test_the_document_says_what_is_true(toy: TeacherNetwork) -> None:
    text = (TOY.parent / "bring_your_own_teacher.md").read_text(encoding="utf-8")
    for protocol in (TeacherNetwork, DecodesBev, Inheritable):
        for member in [name for name in vars(protocol) if not name.startswith("_")]:
            assert f"`{member}" in text
    (snippet,) = (code for code in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL) if "FeatureSpec(" in code)
    assert eval(snippet, {"FeatureSpec": FeatureSpec}) == toy.feature_specs()[0]
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert links
    assert [link for link in links if not (TOY.parent / link).exists()] == []


@pytest.fixture
def program(tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    return Program(tiny_world, tmp_path, monkeypatch)


def test_a_student_learns_from_the_toy(program: Program) -> None:
    teacher = ("--teacher", f"{TOY}:toy_lss", "--cache", "toy-cache")
    assert "toy_lss_teacher.py:toy_lss" in program.succeeded("cache-teacher", *teacher)
    manifest = open_cache(Path("toy-cache")).manifest
    assert manifest.teacher.name == "toy_lss_teacher.py:toy_lss"
    assert [spec.name for spec in manifest.features] == ["bev", "heatmap"]
    assert manifest.grid.shape == (64, 64), "the student's is another"
    student = ("--cache", "toy-cache", "--distiller", "feature")
    alone = "student.training.distillation.inherit=false"
    refused = program.refused("train-student", *student)
    assert "no teacher parameters to inherit" in refused
    assert f"--set {alone}" in refused
    assert "NDS" in program.succeeded("train-student", *student, sets=(*SMALL, f"--set={alone}"))
