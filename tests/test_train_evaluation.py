"""Scores while a run goes on: the run is the same with them, the best weights are kept, and a resumed run keeps on."""

import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from train_world import CPU, SCENES, run_builder, tiny_detector, tiny_tables

from detectors.bevformer import BEVFormer
from scenes.scene_tables import SceneTables
from scenes.score import Score
from schemas.boxes import CLASS_NAMES
from schemas.errors import DataError, RecipeError, UserError
from train.clips import ClipOptions
from train.loop import TrainOutcome, train
from train.metrics_log import StepReport
from train.options import OptimizerOptions, TrainOptions
from train.run import TrainingRun

OPTIONS = TrainOptions(
    steps=7,
    batch_size=2,
    clips=ClipOptions(mode="stream"),
    optimizer=OptimizerOptions(lr=1e-2, warmup_steps=0),
    log_every=1,
    checkpoint_every=100,
    evaluate_every=2,
)
ERRORS = ("mATE", "mASE", "mAOE", "mAVE", "mAAE")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> SceneTables:
    return tiny_tables(tmp_path_factory.getbasetemp() / "train-world")


@pytest.fixture
def run_of(tables: SceneTables, tmp_path: Path) -> Callable[..., TrainingRun]:
    """A run in ``tmp_path / out`` of a fresh detector; keyword arguments are option fields or fields of the run."""
    return run_builder(TrainingRun(tiny_detector(), tables, SCENES, None, OPTIONS, tmp_path, CPU))


def score_of(nds: float, split: str = "tune") -> Score:
    undefined = {"mAOE": float("nan")}
    errors = dict.fromkeys(ERRORS, 1.0)
    by_class = dict.fromkeys(CLASS_NAMES, errors | undefined)
    return Score(nds, nds / 2, errors, dict.fromkeys(CLASS_NAMES, nds), by_class, split, samples=12)


class Judge:
    """Gives the scores it was told to, in turn, and remembers what it has judged."""

    def __init__(self, scores: Sequence[float], split: str = "tune") -> None:
        self.scores, self.split = list(scores), split
        self.seen: list[dict[str, torch.Tensor]] = []

    def __call__(self, detector: BEVFormer) -> Score:
        assert not any(part.training for part in detector.modules())
        self.seen.append({name: values.clone() for name, values in detector.state_dict().items()})
        return score_of(self.scores.pop(0), self.split)


def meddling(detector: BEVFormer) -> Score:
    """Draws random numbers and leaves the detector in training mode."""
    torch.rand(7)
    detector.train()
    return score_of(0.1)


def quietly(run: TrainingRun, max_steps: int | None = None) -> tuple[TrainOutcome, list[StepReport]]:
    reports: list[StepReport] = []
    return train(run, reports.append, max_steps), reports


def entries(run: TrainingRun) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.out / "scores.jsonl").read_text().splitlines()]


def best(run: TrainingRun) -> tuple[int, float]:
    entry = json.loads((run.out / "best.json").read_text())
    return entry["step"], entry["nds"]


def test_a_run_with_evaluation_is_bit_for_bit_the_run_without(run_of) -> None:
    plain = run_of("plain", evaluate_every=0)
    scored = run_of("scored", evaluate_every=1, evaluate=meddling)
    without, beside = ([(r.terms, r.grad_norm) for r in quietly(run)[1]] for run in (plain, scored))
    assert without == beside
    first, second = ((run.out / "weights.safetensors").read_bytes() for run in (plain, scored))
    assert first == second
    assert len(entries(scored)) == 7
    assert not (plain.out / "scores.jsonl").exists()


def test_scores_come_as_often_as_asked_and_after_the_last_step(run_of) -> None:
    judge = Judge([0.1, 0.3, 0.2, 0.25])
    run = run_of(evaluate=judge)
    outcome, _ = quietly(run)
    assert [(entry["step"], entry["nds"]) for entry in entries(run)] == [(2, 0.1), (4, 0.3), (6, 0.2), (7, 0.25)]
    first = entries(run)[0]
    assert (first["split"], first["samples"], first["tp_errors"]) == ("tune", 12, dict.fromkeys(ERRORS, 1.0))
    assert first["class_tp_errors"]["car"]["mAOE"] is None
    assert first["seconds"] > 0
    assert best(run) == (4, 0.3)
    assert outcome.best == run.out / "best.safetensors"
    kept, last = load_file(run.out / "best.safetensors"), load_file(run.out / "weights.safetensors")
    assert all(torch.equal(values, judge.seen[1][name]) for name, values in kept.items())
    assert all(torch.equal(values, judge.seen[3][name]) for name, values in last.items())


def test_what_is_scored_is_the_average_where_there_is_one(run_of) -> None:
    judge = Judge([0.1, 0.2, 0.3, 0.4])
    run = run_of(evaluate=judge, ema_decay=0.9)
    quietly(run)
    result = load_file(run.out / "weights.safetensors")
    assert all(torch.equal(values, judge.seen[-1][name]) for name, values in result.items())
    learner = torch.load(run.out / "last.pt", weights_only=True)["learner"]
    assert any(not torch.equal(values, learner[f"detector.{name}"]) for name, values in result.items())


def test_of_equal_scores_the_earlier_is_the_best(run_of) -> None:
    run = run_of(evaluate=Judge([0.0, 0.2, 0.2, 0.2]))
    quietly(run)
    assert best(run) == (4, 0.2)


def test_a_resumed_run_keeps_its_scores_and_its_best(run_of) -> None:
    quietly(run_of(evaluate=Judge([0.3, 0.1])), max_steps=5)
    kept = (run_of().out / "best.safetensors").read_bytes()
    again = run_of(evaluate=Judge([0.2, 0.25]))
    quietly(again)
    assert [entry["step"] for entry in entries(again)] == [2, 4, 6, 7]
    assert best(again) == (2, 0.3)
    assert (again.out / "best.safetensors").read_bytes() == kept


def test_scores_after_the_checkpoint_are_made_again(run_of) -> None:
    run = run_of(evaluate=Judge([0.3, 0.1]))
    quietly(run, max_steps=3)
    saved = (run.out / "last.pt").read_bytes()
    quietly(run_of(evaluate=Judge([0.1])), max_steps=5)
    (run.out / "last.pt").write_bytes(saved)  # as if the power had failed
    again = run_of(evaluate=Judge([0.1, 0.2, 0.4]))
    quietly(again)
    assert [entry["step"] for entry in entries(again)] == [2, 4, 6, 7]
    assert best(again) == (7, 0.4)


def test_another_split_begins_a_new_best(run_of) -> None:
    quietly(run_of(evaluate=Judge([0.3, 0.4])), max_steps=5)
    again = run_of(evaluate=Judge([0.2, 0.1], split="val"))
    quietly(again)
    assert best(again) == (6, 0.2)


def test_how_often_a_run_is_scored_may_change_on_the_way(run_of) -> None:
    quietly(run_of(evaluate_every=0), max_steps=3)
    again = run_of(evaluate_every=3, evaluate=Judge([0.2, 0.1, 0.3]))
    quietly(again)
    assert [entry["step"] for entry in entries(again)] == [3, 6, 7]


def test_a_new_run_in_an_old_folder_forgets_the_old_best(run_of) -> None:
    run = run_of(evaluate=Judge([0.9]))
    quietly(run, max_steps=2)
    (run.out / "last.pt").unlink()
    again = run_of(evaluate=Judge([0.1]))
    quietly(again, max_steps=2)
    assert best(again) == (2, 0.1)
    assert len(entries(again)) == 1


def test_a_score_that_fails_is_told_and_made_up_for(run_of) -> None:
    def fail(_: BEVFormer) -> Score:
        raise DataError("an image is missing")

    run = run_of(evaluate=fail)
    with pytest.raises(
        DataError, match=r"scoring the weights after step 2 failed: an image is missing.*after step 2 is in"
    ):
        quietly(run)
    again = run_of(evaluate=Judge([0.1, 0.2, 0.3, 0.4]))
    quietly(again)
    assert [entry["step"] for entry in entries(again)] == [2, 4, 6, 7]


def test_ctrl_c_does_not_wait_for_a_score(run_of) -> None:
    def press_at_two(report: StepReport) -> None:
        if report.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    judge = Judge([0.1])
    outcome = train(run_of(evaluate=judge), press_at_two)
    assert outcome.interrupted
    assert not judge.seen
    quietly(run_of(evaluate=judge), max_steps=3)
    assert len(judge.seen) == 1


def test_a_finished_run_is_not_scored_again(run_of) -> None:
    quietly(run_of(evaluate=Judge([0.1, 0.2, 0.3, 0.4])))
    judge = Judge([])
    outcome, reports = quietly(run_of(evaluate=judge))
    assert outcome.finished
    assert not reports


def test_scores_without_anything_to_score_on_are_refused(run_of) -> None:
    run = run_of()
    with pytest.raises(RecipeError, match=r"training\.evaluate_every=2 asks for scores.*evaluate_every=0"):
        quietly(run)
    assert not run.out.exists()


@pytest.mark.parametrize("content", ["[]", "{", '{"step": 1}'])
def test_a_best_score_that_is_none_is_refused(run_of, content: str) -> None:
    quietly(run_of(evaluate=Judge([0.1])), max_steps=2)
    (run_of().out / "best.json").write_text(content)
    with pytest.raises(UserError, match=r"best\.json is no score.*Remove it with best\.safetensors"):
        quietly(run_of(evaluate=Judge([0.2])), max_steps=4)


def test_a_foreign_file_of_scores_is_refused(run_of) -> None:
    quietly(run_of(evaluate=Judge([0.1])), max_steps=2)
    (run_of().out / "scores.jsonl").write_text("hello\n")
    with pytest.raises(UserError, match=r"scores\.jsonl, line 1 is no score of a training run"):
        quietly(run_of(evaluate=Judge([0.2])), max_steps=4)
