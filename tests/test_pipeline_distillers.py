"""Distillers through the command line: a set of them trains one student, and what a cache lacks is told in one line."""

import json
from pathlib import Path

import pytest
from program import SMALL, Program

from scenes.tables import load_tables

DISTILLATION = "--set=student.training.distillation"


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

    matched = (*SMALL, f"{DISTILLATION}.weighting.rule=matched")
    program.succeeded("train-student", *together, sets=matched)
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
