"""What quantisation does to the boxes: the teacher's decoder on the live and on the cached BEV map, box against box."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from schemas.boxes import Boxes
from schemas.fidelity import BoxFidelity

SCORE_THRESHOLD = 0.1
BEST_BOXES = 50
MATCH_WITHIN_M = 2.0


class BoxComparison:
    """Adds up frames. Both choices of boxes are followed, as only the last frame tells which one is reported."""

    def __init__(self) -> None:
        self._above, self._best = _Changes(), _Changes()

    def add(self, live: Boxes, cached: Boxes) -> None:
        """The scored boxes of one frame, decoded from the live and from the cached map, in any order."""
        scores = _scores(live)
        chosen, partners = matched_boxes(live, cached)
        score_changes = np.full(len(live), np.nan)
        score_changes[chosen] = np.abs(scores[chosen] - _scores(cached)[partners])
        moves_m = np.full(len(live), np.nan)
        moves_m[chosen] = np.linalg.norm(live.center_m[chosen] - cached.center_m[partners], axis=1)
        for changes, which in ((self._above, scores > SCORE_THRESHOLD), (self._best, np.argsort(-scores)[:BEST_BOXES])):
            changes.add(scores[which], score_changes[which], moves_m[which])

    def result(self) -> BoxFidelity:
        """Of the boxes above the threshold, or of the best when there is none: random weights score nothing highly."""
        return self._above.result("score") if self._above.boxes > 0 else self._best.result("best")


class _Changes:
    """The changes of one choice of boxes; NaN stands for a box without a partner."""

    def __init__(self) -> None:
        self.boxes = 0
        self._unmatched_scores: list[float] = []
        self._scores: list[NDArray[np.float64]] = []
        self._moves_m: list[NDArray[np.float64]] = []

    def add(
        self, scores: NDArray[np.float64], score_changes: NDArray[np.float64], moves_m: NDArray[np.float64]
    ) -> None:
        matched = np.isfinite(moves_m)
        self.boxes += len(scores)
        self._unmatched_scores.extend(scores[~matched].tolist())
        self._scores.append(score_changes[matched])
        self._moves_m.append(moves_m[matched])

    def result(self, chosen: Literal["score", "best"]) -> BoxFidelity:
        scores = np.concatenate([np.zeros(0), *self._scores])
        moves_m = np.concatenate([np.zeros(0), *self._moves_m])
        found = len(scores) > 0
        return BoxFidelity(
            chosen=chosen,
            threshold=SCORE_THRESHOLD,
            best=BEST_BOXES,
            within_m=MATCH_WITHIN_M,
            boxes=self.boxes,
            unmatched=len(self._unmatched_scores),
            unmatched_best_score=max(self._unmatched_scores, default=None),
            score_change_mean=float(scores.mean()) if found else None,
            score_change_max=float(scores.max()) if found else None,
            center_change_mean_m=float(moves_m.mean()) if found else None,
            center_change_max_m=float(moves_m.max()) if found else None,
        )


def matched_boxes(live: Boxes, cached: Boxes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair the boxes that are each other's nearest of their class, centres at most ``MATCH_WITHIN_M`` apart.

    Each other's: where a box has dropped out of the best that a decoder lists, its neighbour's partner is not its own.

    Returns:
        Indices into ``live`` and ``cached`` of the pairs, in the order of ``live``.
    """
    if len(live) == 0 or len(cached) == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    distance_m = np.linalg.norm(live.center_m[:, None] - cached.center_m[None], axis=2)
    distance_m[live.labels[:, None] != cached.labels[None]] = np.inf
    nearest = distance_m.argmin(axis=1)
    own = np.arange(len(live))
    mutual = distance_m.argmin(axis=0)[nearest] == own
    chosen = own[mutual & (distance_m[own, nearest] <= MATCH_WITHIN_M)]
    return chosen, nearest[chosen]


def _scores(boxes: Boxes) -> NDArray[np.float64]:
    assert boxes.scores is not None, "only detections have scores to compare"
    return boxes.scores
