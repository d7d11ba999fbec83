"""Recall and velocity error of hidden and of moving objects. Ours, not the official score, which knows no conditions.

What a teacher with a long history should be good at are objects that are hidden now and velocities; the official
score shows neither by itself. Annotations are those that it counts: within the range of their class, with at least
one LiDAR or radar point. Detections are matched as in ``matching.py``.

hidden              nuScenes' visibility level 1: at most 40 % of the object is seen, over all cameras together.
hidden, seen before hidden, and seen to 60 % or more (level 3 or 4) in one of the four keyframes before (2 s). One
                    frame hardly shows such an object, a memory of 2 s does. nuScenes annotates no finer, and a
                    LiDAR point says nothing about cameras, so points are asked for only where the score does, too.
moving              the annotated velocity is known, and at least 1 m/s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.matching import MATCH_DISTANCE_M, MatchedFrame
from schemas.boxes import CLASS_NAMES

MOVING_MPS = 1.0
SEEN_WITHIN_KEYFRAMES = 4
WITHOUT_VELOCITY = ("barrier", "traffic_cone")
"""Classes whose velocity error the benchmark does not define."""

CONDITIONS: Mapping[str, str] = {
    "all": "all",
    "moving": f"moving (≥ {MOVING_MPS:g} m/s)",
    "hidden": "hidden now (0-40 % seen)",
    "hidden_seen_before": "hidden now, seen in the last 2 s",
    "hidden_moving": "hidden now, moving",
}
"""Conditions on an annotation, and how tables call them."""


@dataclass(frozen=True)
class ConditionScore:
    """How well the annotations under one condition are found.

    Attributes:
        annotations: their number.
        found: how many of them a kept detection matches.
        velocity_error_mps: mean length of the velocity's error over the found ones whose velocity is known, cones and
            barriers left out; None where there are none.
    """

    annotations: int
    found: int
    velocity_error_mps: float | None

    @property
    def recall(self) -> float | None:
        """Share that was found; None without annotations."""
        return self.found / self.annotations if self.annotations else None


def hidden_and_moving(frames: Sequence[MatchedFrame]) -> dict[str, ConditionScore]:
    """A score for each of ``CONDITIONS`` over some frames."""
    rows = [_frame_rows(frame) for frame in frames]
    found, error_mps = (np.concatenate([row[part] for row in rows]) for part in (0, 1))
    masks = {name: np.concatenate([row[2][name] for row in rows]) for name in CONDITIONS}
    scores = {}
    for name, mask in masks.items():
        errors = error_mps[mask & np.isfinite(error_mps)]
        mean = float(errors.mean()) if len(errors) else None
        scores[name] = ConditionScore(int(mask.sum()), int(found[mask].sum()), mean)
    return scores


def as_document(scores: Mapping[str, ConditionScore]) -> dict[str, Any]:
    """The scores for a JSON file, with what they mean."""
    return {
        "official": False,
        "matched_within_m": MATCH_DISTANCE_M,
        "detections_kept": "of each class the best of the split, as many as it has annotations",
        "moving_from_mps": MOVING_MPS,
        "hidden": "nuScenes visibility level 1 (0-40 %)",
        "seen_before": f"level 3 or 4 (60-100 %) in one of the {SEEN_WITHIN_KEYFRAMES} keyframes before",
        "conditions": {
            name: {
                "annotations": score.annotations,
                "found": score.found,
                "recall": score.recall,
                "velocity_error_mps": score.velocity_error_mps,
            }
            for name, score in scores.items()
        },
    }


def table_rows(scores: Mapping[str, ConditionScore]) -> list[tuple[str, str, str, str]]:
    """Condition, annotations, recall and velocity error in words."""
    return [
        (CONDITIONS[name], str(score.annotations), number(score.recall), number(score.velocity_error_mps))
        for name, score in scores.items()
    ]


def number(value: float | None) -> str:
    """Three decimals, or a dash for what there is not."""
    return "-" if value is None else f"{value:.3f}"


def _frame_rows(
    matched: MatchedFrame,
) -> tuple[NDArray[np.bool_], NDArray[np.float64], dict[str, NDArray[np.bool_]]]:
    """Of each annotation: whether it was found, its velocity error (NaN for none), and its conditions."""
    annotated, detected = matched.annotated, matched.detected
    error_mps = np.full(len(annotated), np.nan)
    right = np.flatnonzero(matched.match >= 0)
    target = matched.match[right]
    difference = detected.velocity_mps[right] - annotated.velocity_mps[target]
    error_mps[target] = np.hypot(difference[:, 0], difference[:, 1])
    undefined = [CLASS_NAMES.index(name) for name in WITHOUT_VELOCITY]
    error_mps[~annotated.has_velocity | np.isin(annotated.labels, undefined)] = np.nan
    speed_mps = np.hypot(annotated.velocity_mps[:, 0], annotated.velocity_mps[:, 1])
    moving = annotated.has_velocity & (speed_mps >= MOVING_MPS)
    hidden = matched.sightings.hidden()
    conditions = {
        "all": np.ones(len(annotated), dtype=np.bool_),
        "moving": moving,
        "hidden": hidden,
        "hidden_seen_before": matched.sightings.hidden_but_seen_within(SEEN_WITHIN_KEYFRAMES),
        "hidden_moving": hidden & moving,
    }
    return matched.found(), error_mps, conditions
