"""The numbers of a run as it goes: JSON lines for programs, TensorBoard for people."""

import json
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from schemas.errors import UserError
from train.run_folder import disk_errors


@dataclass(frozen=True)
class StepReport:
    """What one step did, as it is logged.

    Attributes:
        step: steps done, this one included.
        epoch: of the batch, 0-based.
        lr: learning rate of the main parameter group.
        loss: sum of ``terms``.
        terms: weighted loss terms by name.
        grad_norm: L2 norm of all gradients before clipping.
        seconds: ``data`` (waiting for the batch), ``forward``, ``backward`` (with the update).
        factors: by distiller, what its terms were multiplied with to match the detection loss
            (``train/loss_weighting.py``); empty under fixed weights.
    """

    step: int
    epoch: int
    lr: float
    loss: float
    terms: dict[str, float]
    grad_norm: float
    seconds: dict[str, float]
    factors: dict[str, float] = field(default_factory=dict)


class MetricsLog:
    """Appends one line per logged step; use it as a context manager.

    A resumed run first drops what was logged after its checkpoint, so that the file reads as one uninterrupted run.

    Args:
        path: the JSON-lines file.
        steps_done: lines of later steps are dropped; 0 starts an empty file.
        tensorboard: folder for TensorBoard's files of the same numbers.

    Raises:
        UserError: an existing file is not a metrics log.
    """

    def __init__(self, path: Path, steps_done: int, tensorboard: Path) -> None:
        kept = _lines_until(path, steps_done)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text("".join(kept))
        partial.replace(path)
        self._path = path
        self._file = path.open("a")
        self._tensorboard = SummaryWriter(str(tensorboard), purge_step=steps_done + 1)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        self._tensorboard.close()

    def write(self, report: StepReport) -> None:
        """Log a step; what is named by parts becomes ``terms/...``, ``seconds/...``, ``factors/...`` in TensorBoard.

        The gradient norm of a skipped float16 step is infinite, which JSON cannot say: it becomes null.
        """
        numbers = asdict(report)
        if not isfinite(report.grad_norm):
            numbers["grad_norm"] = None
        with disk_errors("writing metrics", self._path):
            self._file.write(json.dumps(numbers) + "\n")
            self._file.flush()
        for name, value in numbers.items():
            for tag, number in _flat(name, value):
                self._tensorboard.add_scalar(tag, number, report.step)


def _lines_until(path: Path, steps_done: int) -> list[str]:
    """Whole lines of steps up to this one; a last line cut short by a crash is dropped."""
    if steps_done == 0 or not path.exists():
        return []
    kept = []
    for number, line in enumerate(path.read_text().splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            break
        try:
            step = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}, line {number} is no metrics of a training run ({error!r}). "
                "Restore or remove the file, or choose another folder with OUT=..."
            ) from error
        if step <= steps_done:
            kept.append(line)
    return kept


def _flat(name: str, value: Any) -> list[tuple[str, float]]:
    if value is None:
        return []
    if isinstance(value, dict):
        return [(f"{name}/{key}", float(number)) for key, number in value.items()]
    return [(name, float(value))]
