"""The log is plain JSON lines, and reads as one run after a resume."""

import json
import math
from pathlib import Path

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
