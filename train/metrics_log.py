"""The numbers of a run as it goes: JSON lines for programs, TensorBoard for people."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from train.step_lines import StepLines


@dataclass(frozen=True)
class StepReport:
    """What one step did, as it is logged.

    Attributes:
        step: steps done, this one included.
        epoch: of the step's last batch, 0-based.
        lr: learning rate of the main parameter group.
        loss: sum of ``terms``.
        terms: weighted loss terms by name, means over the step's batches.
        grad_norm: L2 norm of all gradients before clipping.
        seconds: ``data`` (waiting for batches), ``forward``, ``backward`` (with the update).
        factors: by distiller, what its terms were multiplied with to match the detection loss
            (``train/loss_weighting.py``); empty under fixed weights.
        lr_by_group: learning rate of every parameter group.
        loss_scale: what float16 losses are multiplied with, for the next step; None in other precisions.
        samples: supervised frames of the step.
    """

    step: int
    epoch: int
    lr: float
    loss: float
    terms: dict[str, float]
    grad_norm: float
    seconds: dict[str, float]
    factors: dict[str, float] = field(default_factory=dict)
    lr_by_group: dict[str, float] = field(default_factory=dict)
    loss_scale: float | None = None
    samples: int = 0


class MetricsLog:
    """Appends one line per logged step; use it as a context manager.

    A line is the step's report, and ``pace`` over the steps since the line before: ``samples_per_second`` and
    ``data_wait_share``, the part of the time that was spent waiting for batches. Time between steps (checkpoints,
    evaluations) is not in it.

    Args:
        path: the JSON-lines file.
        steps_done: lines of later steps are dropped; 0 starts an empty file.
        tensorboard: folder for TensorBoard's files of the same numbers.

    Raises:
        UserError: an existing file is not a metrics log.
    """

    def __init__(self, path: Path, steps_done: int, tensorboard: Path) -> None:
        self._lines = StepLines(path, steps_done, "metrics")
        self._tensorboard = SummaryWriter(str(tensorboard), purge_step=steps_done + 1)
        self._unlogged: list[StepReport] = []

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lines.close()
        self._tensorboard.close()

    def pass_over(self, report: StepReport) -> None:
        """Take a step that gets no line of its own into account."""
        self._unlogged.append(report)

    def write(self, report: StepReport) -> None:
        """Log a step; what is named by parts becomes ``terms/...``, ``seconds/...``, ``factors/...`` in TensorBoard.

        The gradient norm of a skipped float16 step is infinite, which JSON cannot say: it becomes null.
        """
        numbers = asdict(report) | {"pace": _pace([*self._unlogged, report])}
        self._unlogged.clear()
        if not isfinite(report.grad_norm):
            numbers["grad_norm"] = None
        if report.loss_scale is None:
            del numbers["loss_scale"]
        self._lines.append(numbers)
        self.draw(report.step, numbers)

    def draw(self, step: int, numbers: Mapping[str, Any]) -> None:
        """Give numbers to TensorBoard alone: those of a mapping under its name, those that are None not at all."""
        for name, value in numbers.items():
            for tag, number in _flat(name, value):
                self._tensorboard.add_scalar(tag, number, step)


def _pace(reports: list[StepReport]) -> dict[str, float]:
    total = max(sum(sum(report.seconds.values()) for report in reports), 1e-9)
    waited = sum(report.seconds.get("data", 0.0) for report in reports)
    samples = sum(report.samples for report in reports)
    return {"samples_per_second": samples / total, "data_wait_share": waited / total}


def _flat(name: str, value: Any) -> list[tuple[str, float]]:
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [(f"{name}/{key}", float(number)) for key, number in value.items()]
    return [(name, float(value))]
