"""The student stage under torchrun: one voice, one checkpoint, Ctrl-C for all."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from program import SMALL, Program

from pipeline import processes
from pipeline.console import console
from schemas.errors import RecipeError
from train.distributed import Processes

REPOSITORY = Path(__file__).resolve().parent.parent
STUDENT = ("--distiller=none", "--no-twin", "--pictures=0", "--out=student", "--set=student.training.steps=200")


@contextmanager
def torchrun(program: Program, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """``torchrun --nproc-per-node 2 -m pipeline train-student`` in the program's folder, its output together."""
    starter = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "pipeline"]
    command = [*starter, "train-student", f"--data={program.data}", *SMALL, *STUDENT, *arguments]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        command, cwd=program.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        try:
            yield running
        finally:
            if running.poll() is None:
                running.terminate()  # it ends its processes


def steps_logged(metrics: Path) -> list[int]:
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return [json.loads(line)["step"] for line in lines]


@pytest.mark.slow
def test_two_processes_train_one_student(tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, metrics = Program(tiny_world, tmp_path, monkeypatch), tmp_path / "student" / "metrics.jsonl"
    with torchrun(program) as running:
        give_up = time.monotonic() + 300
        while len(steps_logged(metrics)) < 2 and time.monotonic() < give_up:
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        printed = running.communicate(timeout=120)[0]
    assert running.returncode != 0
    assert printed.count("error: Interrupted. The last checkpoint is kept") == 1, printed
    done = len(steps_logged(metrics))
    assert 2 <= done < 200

    with torchrun(program, f"--max-steps={done + 2}") as running:
        printed = running.communicate(timeout=300)[0]
    assert running.returncode == 0, printed
    assert printed.count(f"train-student in 2 processes: {done + 2} steps done") == 1, printed
    assert printed.count("NDS") >= 1
    assert steps_logged(metrics) == list(range(1, done + 3))

    told = program.refused("train-student", *STUDENT)
    assert "processes: 1 now, 2 in the checkpoint" in told
    assert "torchrun --nproc-per-node N" in told


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """As if this were the second of two processes, on a machine with two GPUs; returns what becomes current."""
    current: list[torch.device] = []
    monkeypatch.setattr(console, "quiet", False)
    monkeypatch.setattr(processes, "joined_processes", lambda _environment, _device: nullcontext(Processes(1, 2, 1)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


def test_every_process_has_a_gpu_of_its_own_and_one_speaks(second_of_two: list[torch.device]) -> None:
    with processes.open_processes("cuda") as (joined, device):
        assert (joined.rank, device) == (1, torch.device("cuda", 1))
        assert console.quiet
    assert second_of_two == [torch.device("cuda", 1)]


@pytest.mark.usefixtures("second_of_two")
def test_processes_without_a_gpu_of_their_own_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(RecipeError, match=r"several processes cannot share one GPU"),
        processes.open_processes("cuda:1"),
    ):
        pass
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    told = r"has 1 GPUs, and this is its process number 2. Start fewer: torchrun --nproc-per-node 1"
    with pytest.raises(RecipeError, match=told), processes.open_processes("cuda"):
        pass
