"""Which annotations a detector finds at one operating point, matched as the official evaluation matches.

The official score looks at all scores at once. To say of a single object whether it was found, a detector needs a
threshold, and thresholds of two detectors are not comparable: one may be more confident than the other throughout. So
each class keeps its best detections of the whole split, as many as it has annotations there; at this point recall
equals precision for every class that has enough detections.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenes.scene_tables import SceneTables
from scenes.submission import in_class_range
from scenes.visibility import Sightings
from schemas.boxes import CLASS_NAMES, Boxes
from schemas.frames import Frame

MATCH_DISTANCE_M = 2.0
"""Between centres on the ground: the distance at which the official evaluation measures its errors."""


@dataclass(frozen=True, eq=False)
class MatchedFrame:
    """The annotations and the kept detections of one frame.

    Attributes:
        frame: the keyframe.
        annotated: N annotations within the range in which their class is scored.
        sightings: how far they are seen.
        detected: D detections that were kept, best first.
        match: (D,) int64, the annotation that each detection found; -1 for a false one.
    """

    frame: Frame
    annotated: Boxes
    sightings: Sightings
    detected: Boxes
    match: NDArray[np.int64]

    def found(self) -> NDArray[np.bool_]:
        """(N,) bool: annotations that were found."""
        return np.isin(np.arange(len(self.annotated)), self.match)


def match_split(detections: Mapping[str, Boxes], tables: SceneTables, split: str) -> tuple[MatchedFrame, ...]:
    """Match the kept detections of every frame of a split, scene by scene in time order.

    Args:
        detections: scored boxes in the LiDAR frame by sample token, for all samples of the split.
        tables: a version with annotations.
        split: one of its splits.
    """
    frames = [frame for name in tables.scene_names(split) for frame in tables.frames(name)]
    in_range = [_annotations_in_range(frame, tables) for frame in frames]
    found = [detections[frame.sample_token] for frame in frames]
    candidates = [boxes.select(in_class_range(frame, boxes)) for frame, boxes in zip(frames, found, strict=True)]
    counts = np.bincount(np.concatenate([boxes.labels for boxes, _ in in_range]), minlength=len(CLASS_NAMES))
    return tuple(
        MatchedFrame(frame, annotated, sightings, detected, match_frame(annotated, detected))
        for frame, (annotated, sightings), detected in zip(frames, in_range, _best(candidates, counts), strict=True)
    )


def match_frame(annotated: Boxes, detected: Boxes) -> NDArray[np.int64]:
    """Greedy matching of one frame: each detection takes the nearest annotation of its class that is still free.

    Args:
        annotated: N annotations.
        detected: D detections, best first.

    Returns:
        (D,) int64, index of the annotation, or -1 where none is nearer than ``MATCH_DISTANCE_M``.
    """
    offsets_m = detected.center_m[:, None, :2] - annotated.center_m[None, :, :2]
    distance_m = np.hypot(offsets_m[..., 0], offsets_m[..., 1])
    distance_m[detected.labels[:, None] != annotated.labels[None]] = np.inf
    match = np.full(len(detected), -1, dtype=np.int64)
    for row in range(len(detected) if len(annotated) else 0):
        nearest = int(distance_m[row].argmin())
        if distance_m[row, nearest] < MATCH_DISTANCE_M:
            match[row] = nearest
            distance_m[:, nearest] = np.inf
    return match


def _annotations_in_range(frame: Frame, tables: SceneTables) -> tuple[Boxes, Sightings]:
    assert frame.boxes is not None, "only labelled splits are scored"
    chosen = in_class_range(frame, frame.boxes)
    given = tables.sightings(frame.sample_token)
    return frame.boxes.select(chosen), Sightings(given.visibility[chosen], given.unseen_keyframes[chosen])


def _best(candidates: Sequence[Boxes], counts: NDArray[np.int64]) -> list[Boxes]:
    """The best of each class over all frames, ``counts`` of them, best first within each frame."""
    labels = np.concatenate([boxes.labels for boxes in candidates])
    scores = np.concatenate([_scores(boxes) for boxes in candidates])
    kept = np.zeros(len(labels), dtype=np.bool_)
    for label, count in enumerate(counts.tolist()):
        of_class = np.flatnonzero(labels == label)
        kept[of_class[np.argsort(-scores[of_class], kind="stable")[:count]]] = True
    chosen = np.split(kept, np.cumsum([len(boxes) for boxes in candidates])[:-1])
    best = [boxes.select(mask) for boxes, mask in zip(candidates, chosen, strict=True)]
    return [boxes.select(np.argsort(-_scores(boxes), kind="stable")) for boxes in best]


def _scores(boxes: Boxes) -> NDArray[np.float64]:
    assert boxes.scores is not None, "detections have scores"
    return boxes.scores
