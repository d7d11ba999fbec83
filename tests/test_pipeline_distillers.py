"""Distillers through the command line: a set of them trains one student, and what a cache lacks is told in one line."""

import json
from pathlib import Path

import pytest
import yaml
from program import SMALL, Program
from safetensors import safe_open

from detectors.bevformer import BEVFormer
from detectors.catalogue import build, demo_student
from detectors.config import BEVFormerConfig
from scenes.tables import load_tables

DISTILLATION = "--set=student.training.distillation"
NARROW = ("--set=student.detector.embed_dims=32", "--set=student.detector.neck.out_channels=32")


def test_a_set_of_distillers_trains_one_student(
    tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Program(tiny_world, tmp_path, monkeypatch)
    scene = load_tables(program.data, "v1.0-trainval").scene_names("train")[0]
    program.succeeded("cache-teacher", "--untrained", "--scenes", scene)
    names = "tempdistiller,pkd,temporal-attention"
    together = ("--allow-untrained-teacher", "--scenes", scene, "--distiller", names, "--max-steps", "2")
    lacking = (*SMALL, f"{DISTILLATION}.tempdistiller.target=temporal_target")
    assert "no feature 'temporal_target'" in program.refused("train-student", *together, sets=lacking)

    program.succeeded("train-student", *together)
    folder = Path("out/demo/student-tempdistiller+pkd+temporal-attention-seed0")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {name for name in lines[-1]["terms"] if not name.startswith("detection/")} == {
        "tempdistiller/reconstruction",
        "tempdistiller/relation",
        "pkd/bev",
        "temporal-attention/offsets",
        "temporal-attention/weights",
    }
    assert set(lines[-1]["factors"]) == {"tempdistiller", "pkd", "temporal-attention"}


def test_a_student_inherits_and_no_teacher_is_built(
    tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Program(tiny_world, tmp_path, monkeypatch)
    scene = load_tables(program.data, "v1.0-trainval").scene_names("train")[0]
    program.succeeded("cache-teacher", "--untrained", "--scenes", scene)
    built: list[BEVFormerConfig] = []
    construct = BEVFormer.__init__

    def counted(detector: BEVFormer, config: BEVFormerConfig) -> None:
        built.append(config)
        construct(detector, config)

    monkeypatch.setattr(BEVFormer, "__init__", counted)
    taught = ("--allow-untrained-teacher", "--scenes", scene, "--distiller", "structured-kd", "--max-steps", "1")
    sets = (*SMALL, f"{DISTILLATION}.inherit=true", "--set=student.training.init.weights=null")
    narrow = program.refused("train-student", *taught, "--out", "out/narrow", sets=(*sets, *NARROW))
    assert "bev_embedding.weight: it has the shape [1600, 64] in the teacher and [1600, 32] in the student" in narrow

    program.succeeded("train-student", *taught, sets=sets)
    folder = Path("out/demo/student-structured-kd-seed0")
    told = json.loads((folder / "inherited.json").read_text())
    assert told["parts"] == ["bev_queries", "positions", "object_queries", "decoder", "branches"]
    assert told["resized"] == []
    assert yaml.safe_load((folder / "recipe.yaml").read_text())["student"]["training"]["distillation"]["inherit"]
    assert {config.backbone.channels for config in built} == {demo_student().backbone.channels}
    assert {term for term in terms_of(folder) if not term.startswith("detection/")} == {
        "structured-kd/spatial",
        "structured-kd/temporal",
        "structured-kd/response",
    }


@pytest.mark.parametrize("source", ["teacher", "learned"])
def test_fd3d_trains_a_student(source: str, tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(tiny_world, tmp_path, monkeypatch)
    scene = load_tables(program.data, "v1.0-trainval").scene_names("train")[0]
    program.succeeded("cache-teacher", "--untrained", "--scenes", scene)
    small = '{"queries": 20, "layers": 1, "heads": 4}'
    sets = (*SMALL, f"{DISTILLATION}.fd3d.query_source={source}", f"{DISTILLATION}.fd3d.branch={small}")
    taught = ("--allow-untrained-teacher", "--scenes", scene, "--distiller", "fd3d", "--max-steps", "2")
    program.succeeded("train-student", *taught, sets=sets)
    folder = Path("out/demo/student-fd3d-seed0")
    own = {"fd3d/generation", "fd3d/refinement"} | ({"fd3d/branch"} if source == "learned" else set())
    assert {term for term in terms_of(folder) if not term.startswith("detection/")} == own
    with safe_open(folder / "weights.safetensors", "np") as weights:
        assert set(weights.keys()) == set(build(demo_student()).state_dict())  # nothing of the distiller's is left


def terms_of(folder: Path) -> set[str]:
    """Names of the loss terms of a run's last line."""
    return set(json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["terms"])
