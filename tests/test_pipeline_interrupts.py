"""Ctrl-C in every program, as a terminal sends it: to a real process and to all its children."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from program import SMALL, Program

from cache.reading import open_cache
from detectors.weights import save_weights
from pipeline.missing_cache import _status_of
from pipeline.recipes import demo
from pipeline.training import seeded_detector

REPOSITORY = Path(__file__).resolve().parent.parent
LONG = (*SMALL, "--set=student.training.steps=500", "--set=teacher.training.steps=500")


def interrupted(command: str, *arguments: str, begun: str, later_s: float = 0.0) -> str:
    """What a program says that gets Ctrl-C once a file of this pattern is there; it must end with status 1."""
    program = subprocess.Popen(
        [sys.executable, "-m", "pipeline", command, *arguments],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with program:
        while program.poll() is None and not any(Path().glob(begun)):
            time.sleep(0.01)
        time.sleep(later_s)
        os.killpg(program.pid, signal.SIGINT)
        printed, _ = program.communicate()
    assert program.returncode == 1, printed
    assert "error: Interrupted." in printed
    assert "Traceback" not in printed
    return printed


@pytest.fixture
def program(tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    return Program(tiny_world, tmp_path, monkeypatch)


def test_making_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # A moment later the worker processes are starting up, where Python itself would die of the signal noisily.
    printed = interrupted("make-scenes", "--out", "world", begun="world.partial/maps", later_s=0.1)
    assert "Nothing half-written" in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("command", "more"), [("demo-teacher", ()), ("train-student", ("--distiller", "none"))])
def test_training(program: Program, command: str, more: tuple[str, ...]) -> None:
    arguments = ("--data", str(program.data), "--out", "run", *more)
    interrupted(command, *arguments, *LONG, begun="run/metrics.jsonl")
    steps = len(Path("run/metrics.jsonl").read_text().splitlines())
    assert steps < 500
    assert not Path("run/teacher.safetensors").exists()
    program.succeeded(command, "--out", "run", "--max-steps", str(steps + 1), *more, sets=LONG)


def test_caching(program: Program) -> None:
    arguments = ("--data", str(program.data), "--cache", "cache", "--untrained")
    printed = interrupted("cache-teacher", *arguments, *SMALL, begun="cache/.writers/partial/*")
    assert "Finished scenes are kept" in printed
    assert list(Path("cache/.writers/partial").iterdir()) == []
    program.succeeded("cache-teacher", "--cache", "cache", "--untrained")
    assert len(open_cache("cache").scene_names) == 2


def test_evaluating(program: Program) -> None:
    save_weights(seeded_detector(demo().student.detector, 0), program.folder / "student.safetensors")
    arguments = ("--data", str(program.data), "--checkpoint", "student.safetensors", "--out", "score")
    assert "Nothing was scored" in interrupted("evaluate", *arguments, *SMALL, begun="score/recipe.yaml")
    assert [path.name for path in Path("score").iterdir()] == ["recipe.yaml"]


def test_a_program_within_a_program_may_save_its_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    child = (
        "import os, pathlib, signal, time; time.sleep(1); os.kill(os.getppid(), signal.SIGINT); "
        "time.sleep(1); pathlib.Path('saved').touch()"
    )
    with pytest.raises(KeyboardInterrupt):
        _status_of([sys.executable, "-c", child])
    assert Path("saved").exists()
    assert _status_of([sys.executable, "-c", "raise SystemExit(3)"]) == 3
