"""Scores while a run goes on, and the weights of the best.

What is scored is what would be the result if training ended here: the averaged weights where an average is kept. The
run itself goes on as if nothing had happened: the detector's modes and torch's random streams are put back, so a run
with evaluation is bit for bit the run without.
"""

import json
from collections.abc import Callable
from time import perf_counter
from types import TracebackType
from typing import Any

from detectors.bevformer import BEVFormer
from detectors.weights import save_weights
from scenes.score import Score
from schemas.errors import UserError
from train.history import evaluating
from train.metrics_log import MetricsLog
from train.options import TrainOptions
from train.random_streams import RandomStreams
from train.run_folder import RunFolder, disk_errors
from train.step_lines import StepLines

Evaluate = Callable[[BEVFormer], Score]
"""Scores a detector as it is, on frames that it does not train on."""


class PeriodicEvaluation:
    """Scores every so many steps and after the last one. Use it as a context manager, which closes its file.

    An entry of ``scores.jsonl`` is the score with its ``step`` and the ``seconds`` it took. The best has the highest
    NDS and is the earlier of equal ones; a score on another split begins a new best.

    Args:
        evaluate: None for never.
        options: how often.
        folder: where scores and the best weights go.
        steps_done: later scores are dropped, since their steps are made again; with 0 the best too.

    Raises:
        UserError: a file of scores holds something else.
    """

    def __init__(self, evaluate: Evaluate | None, options: TrainOptions, folder: RunFolder, steps_done: int) -> None:
        self._evaluate, self._options, self._folder = evaluate, options, folder
        self._lines: StepLines | None = None
        self._scored: set[int] = set()
        if evaluate is None or options.evaluate_every == 0:
            return
        if steps_done == 0:
            folder.best_score.unlink(missing_ok=True)
            folder.best.unlink(missing_ok=True)
        best_score(folder)  # a damaged one is told now, not after an evaluation
        self._lines = StepLines(folder.scores, steps_done, "score")
        self._scored = {entry["step"] for entry in self._lines.kept}

    def __enter__(self) -> "PeriodicEvaluation":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lines is not None:
            self._lines.close()

    def is_due(self, step: int) -> bool:
        """Whether the weights after this many steps are to be scored, and are not yet."""
        if self._lines is None or step == 0 or step in self._scored:
            return False
        return step % self._options.evaluate_every == 0 or step == self._options.steps

    def score(self, detector: BEVFormer, step: int, log: MetricsLog) -> None:
        """Score the weights after this many steps, keep them if they are the best so far, and log.

        Raises:
            UserError: they cannot be scored, or the disk refuses.
        """
        assert self._evaluate is not None
        assert self._lines is not None
        started = perf_counter()
        device = next(detector.parameters()).device
        random = RandomStreams.of(device)
        try:
            with evaluating(detector):
                score = self._evaluate(detector)
        except UserError as error:
            raise type(error)(f"scoring the weights after step {step} failed: {error}") from error
        finally:
            random.restore(device)
        entry = {"step": step, "seconds": perf_counter() - started} | score.as_dict()
        self._keep_if_best(detector, entry)
        self._lines.append(entry)  # last: an entry that stands needs no second evaluation
        self._scored.add(step)
        log.draw(step, {"score": {"NDS": score.nds, "mAP": score.mean_ap} | score.tp_errors, "AP": score.class_ap})

    def _keep_if_best(self, detector: BEVFormer, entry: dict[str, Any]) -> None:
        best = best_score(self._folder)
        if best is not None and best["split"] == entry["split"] and best["nds"] >= entry["nds"]:
            return
        with disk_errors("writing the best weights", self._folder.best):
            save_weights(detector, self._folder.best)
        text = json.dumps(entry, indent=2) + "\n"
        self._folder.write(self._folder.best_score, lambda path: path.write_text(text))


def best_score(folder: RunFolder) -> dict[str, Any] | None:
    """The entry of ``scores.jsonl`` that the best weights earned; None before the first.

    Raises:
        UserError: ``best.json`` holds something else.
    """
    if not folder.best_score.exists():
        return None
    try:
        entry: dict[str, Any] = json.loads(folder.best_score.read_text())
        return entry | {key: entry[key] for key in ("step", "split", "nds")}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder.best_score} is no score of a training run ({error!r}). Remove it with {folder.best.name} "
            "beside it to have the best found anew, or choose another folder with OUT=..."
        ) from error
