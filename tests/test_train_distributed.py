"""Two processes that train together do what one would do with the batches of both, and stop together."""

import dataclasses
import json
import math
import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_program import CASES, gradients
from train_world import CPU, fill_cache, tiny_tables

from cache.reading import open_cache
from schemas.errors import NotFiniteError, RecipeError
from train.batches import TrainingBatch
from train.checkpoint import TrainingState
from train.distributed import ALONE, Processes, joined_processes
from train.step import train_step

PROGRAM = Path(__file__).parent / "distributed_program.py"


def torchrun_variables(rank: int, count: int) -> dict[str, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have been at work."""
    folder = tmp_path_factory.mktemp("distributed")
    fill_cache(folder / "cache", tiny_tables(folder / "world"))
    variables = torchrun_variables(0, 2)
    search = os.pathsep.join([str(PROGRAM.parent.parent), str(PROGRAM.parent)])
    programs = [
        subprocess.Popen(
            [sys.executable, PROGRAM, folder],
            env=os.environ | variables | {"RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": search},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        printed = [program.communicate(timeout=240)[0] for program in programs]
    finally:
        for program in programs:
            program.kill()  # one that waits for the other would wait on
    assert [program.returncode for program in programs] == [0, 0], "\n".join(printed)
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    """What each of them found."""
    return [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_have_the_gradients_of_one(folder: Path, case: str) -> None:
    theirs = torch.load(folder / "gradients-of-two.pt", weights_only=True)[case]
    ours = gradients(case, tiny_tables(folder / "world"), open_cache(folder / "cache"), ALONE)
    assert set(theirs) == set(ours), "one keeps no gradient where the other does"
    largest = max(float(values.abs().max()) for values in ours.values())
    for name, values in ours.items():
        torch.testing.assert_close(theirs[name], values, rtol=1e-3, atol=1e-5 * largest, msg=f"{case}: {name}")


def test_the_first_makes_what_the_others_find(found) -> None:
    assert found[0]["first"] == [False, [{"rank": 0}, {"rank": 1}], True, [[0.0, 0.5], [1.0, 0.5]]]
    assert found[1]["first"] == [True, [], True, [[0.0, 0.5], [1.0, 0.5]]]


def test_a_resumed_run_is_the_uninterrupted_one_in_every_process(folder: Path, found) -> None:
    first, second = (ours["resumed"] for ours in found)
    assert first["whole"] == first["halves"] == second["whole"] == second["halves"]
    for ours in (first, second):
        assert ours["statistics"][0] == ours["statistics"][1], "batch norms go on from the first process's"
    assert first["random"] != second["random"], "dropout is another in every process"
    whole, halves = (metrics(folder / out) for out in ("whole", "halves"))
    assert [line["step"] for line in whole] == [1, 2, 3, 4, 5]
    assert whole == halves
    assert whole[0]["samples"] == 4, "a clip per batch, two batches per step, two processes"
    assert whole[0]["factors"] != whole[-1]["factors"], "the weighting is matched"


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in ("seconds", "pace")} for line in lines]


def test_all_stop_when_one_is_asked_to(folder: Path, found) -> None:
    assert [ours["interrupted"] for ours in found] == [[2, True], [2, True]]
    assert (folder / "interrupted" / "last.pt").exists()


def test_an_error_of_one_is_told_by_all_and_the_last_whole_step_is_saved(folder: Path, found) -> None:
    for ours in found:
        told = ours["unreadable"]
        assert re.match(
            r"StoppedTogetherError: training stopped at step 4: process 1 of 2: the image of scene-.* is torn.*"
            r"The state after step 3 is in .*/unreadable/last\.pt",
            told,
        ), told
    assert torch.load(folder / "unreadable" / "last.pt", weights_only=True)["step"] == 3


def test_numbers_that_are_not_finite_in_one_end_all(folder: Path, found) -> None:
    first, second = (ours["not finite"] for ours in found)
    assert re.match(r"NotFiniteError: training stopped at step 4: 0 of the .* but some are in another process", first)
    assert re.match(r"NotFiniteError: training stopped at step 4: [1-9]\d* of the detector's .*Samples: ", second)
    assert torch.load(folder / "not-finite" / "last.pt", weights_only=True)["step"] == 3


def test_another_number_of_processes_is_refused(found) -> None:
    told = found[0]["one"]
    assert re.match(
        r"CheckpointError: .*last\.pt was written by another run.*\n  processes: 1 now, 2 in the checkpoint\n"
        r".*as many processes \(torchrun --nproc-per-node N",
        told,
    ), told


def test_a_folder_that_only_some_processes_see_is_refused(found) -> None:
    for ours in found:
        assert re.match(
            r"CheckpointError: .* is there for some of the processes, but not for 1: all read it. .*OUT=", ours["where"]
        )


def test_an_error_in_the_middle_of_a_step_ends_the_others_too(found) -> None:
    assert found[1]["alone"] == (
        "DataError: process 1 of 2: training stopped at step 2: an annotation has no box code "
        f"Samples: {found[1]['alone'].rpartition('Samples: ')[2]}"
    )
    assert re.match(
        r"UserError: process 0 of 2: lost contact with the other training processes \(.*\)\. One of them has stopped",
        found[0]["alone"],
    ), found[0]["alone"]


def test_without_torchrun_a_process_is_alone() -> None:
    for environment in ({}, {"MASTER_PORT": "1"}, torchrun_variables(0, 1)):
        with joined_processes(environment, "cpu") as processes:
            assert (processes.rank, processes.count, processes.is_first) == (0, 1, True)


@pytest.mark.parametrize(
    "change", [{"MASTER_PORT": None}, {"LOCAL_RANK": None}, {"RANK": "2"}, {"RANK": "-1"}, {"WORLD_SIZE": "two"}]
)
def test_an_environment_that_torchrun_did_not_make_is_refused(change: dict[str, str | None]) -> None:
    given = torchrun_variables(1, 2) | change
    environment = {name: value for name, value in given.items() if value is not None}
    told = r"one of several processes \(RANK=.*expected RANK, LOCAL_RANK, .*torchrun --nproc-per-node N -m pipeline"
    with pytest.raises(RecipeError, match=told), joined_processes(environment, "cpu"):
        pass


class OneTerm(torch.nn.Linear):
    """A learner that knows one loss term."""

    def forward(self, batch: object, left: object) -> tuple[dict[str, torch.Tensor], None]:
        del batch, left
        return {"a": self.weight.sum()}, None


class SeesTwo(Processes):
    """A process whose partner's loss is not finite."""

    def by_rank(self, numbers: Sequence[float]) -> list[list[float]]:
        return [list(numbers), [math.nan, *numbers[1:]]]


def test_the_process_whose_loss_is_not_finite_is_named() -> None:
    learner, scaler = OneTerm(1, 1), torch.amp.GradScaler("cpu", enabled=False)
    state = TrainingState(learner, torch.optim.AdamW(learner.parameters()), scaler, CPU, processes=SeesTwo())
    fields = {field.name: None for field in dataclasses.fields(TrainingBatch)} | {"sample_tokens": ("s0",)}
    batch = object.__new__(TrainingBatch)
    for name, value in fields.items():
        object.__setattr__(batch, name, value)
    with pytest.raises(NotFiniteError, match=r"^the loss is not finite: a is nan in process 1\. Samples: s0"):
        train_step(state, iter([batch]), None, 1, 1.0)
