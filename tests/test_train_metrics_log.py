"""The log is plain JSON lines, and reads as one run after a resume."""

import json
import math
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from train.metrics_log import MetricsLog, StepReport


def report(step: int, grad_norm: float = 1.0) -> StepReport:
    return StepReport(step, 0, 1e-3, 2.0, {"detection/loss_cls": 2.0}, grad_norm, {"data": 0.1})


def steps_in(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_a_new_run_starts_an_empty_file_and_a_resumed_one_keeps_what_was_saved(tmp_path: Path) -> None:
    path, board = tmp_path / "metrics.jsonl", tmp_path / "tensorboard"
    with MetricsLog(path, 0, board) as log:
        for step in (1, 2, 3):
            log.write(report(step))
    with MetricsLog(path, 2, board) as log:
        assert steps_in(path) == [1, 2]
        log.write(report(3))
    assert steps_in(path) == [1, 2, 3]
    with MetricsLog(path, 0, board):
        assert steps_in(path) == []


def test_an_infinite_gradient_norm_stays_valid_json(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, 0, tmp_path / "tensorboard") as log:
        log.write(report(1, grad_norm=math.inf))

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert json.loads(path.read_text(), parse_constant=refuse)["grad_norm"] is None


def timed(step: int, data: float, forward: float, loss_scale: float | None = None) -> StepReport:
    seconds = {"data": data, "forward": forward, "backward": 0.0}
    rates = {"main": 1e-3, "backbone": 1e-4}
    return StepReport(step, 0, 1e-3, 2.0, {"x/y": 2.0}, 1.0, seconds, {"x": 0.5}, rates, loss_scale, samples=4)


def test_the_pace_is_that_of_all_steps_since_the_line_before(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "metrics.jsonl", 0, tmp_path / "tensorboard") as log:
        log.pass_over(timed(1, data=1.0, forward=1.0))
        log.write(timed(2, data=0.0, forward=2.0))
        log.write(timed(3, data=0.5, forward=0.5))
    lines = [json.loads(line)["pace"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [
        {"samples_per_second": pytest.approx(2.0), "data_wait_share": pytest.approx(0.25)},
        {"samples_per_second": pytest.approx(4.0), "data_wait_share": pytest.approx(0.5)},
    ]


def test_the_loss_scale_is_logged_where_there_is_one(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "metrics.jsonl", 0, tmp_path / "tensorboard") as log:
        log.write(timed(1, 0.1, 0.1))
        log.write(timed(2, 0.1, 0.1, loss_scale=1024.0))
    first, second = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert "loss_scale" not in first
    assert second["loss_scale"] == 1024.0


def test_tensorboard_has_every_number_and_forgets_what_is_made_again(tmp_path: Path) -> None:
    board = tmp_path / "tensorboard"
    with MetricsLog(tmp_path / "metrics.jsonl", 0, board) as log:
        for step in (1, 2, 3):
            log.write(timed(step, 0.1, 0.1))
        log.draw(3, {"score": {"NDS": 0.25}, "nothing": None})
    with MetricsLog(tmp_path / "metrics.jsonl", 2, board) as log:
        log.write(timed(3, 0.1, 0.1))
        log.draw(3, {"score": {"NDS": 0.5}})
    events = EventAccumulator(str(board)).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"loss", "lr", "grad_norm", "terms/x/y", "factors/x", "lr_by_group/backbone", "seconds/data"} < tags
    assert {"pace/data_wait_share", "pace/samples_per_second", "score/NDS"} < tags
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]
    assert [(event.step, event.value) for event in events.Scalars("score/NDS")] == [(3, 0.5)]
