"""Everything a picture of one frame shows, read from the cache and from the data set."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from pyarrow import compute

from cache.reading import Cache
from detectors.config import HeadConfig
from detectors.decoding import decode_queries
from detectors.outputs import QueryOutputs
from pipeline.pictures.bev_colors import BevColors, fit_colors
from pipeline.pictures.drawable import drawable
from schemas.bev_grid import BevGrid
from schemas.boxes import CLASS_NAMES, Boxes
from schemas.frames import Frame

_MAPS_FOR_COLORS = 8
_NEIGHBOURS_KEPT = 4


@dataclass(frozen=True, eq=False)
class QueryPoints:
    """Object queries seen from above.

    Attributes:
        start_m, end_m: (query, 2) float64, reference points before and after the decoder, x and y in metres.
        scores: (query,) float64, the best class's probability.
    """

    start_m: NDArray[np.float64]
    end_m: NDArray[np.float64]
    scores: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TemporalSamples:
    """Where temporal attention samples, for every cell.

    Attributes:
        offsets: (rows, cols, head, source, point, 2) float32, cells.
        weights: (rows, cols, head, source, point) float32.
        previous_from_current: (4, 4) float64, LiDAR frames; None on a scene's first frame, which has no history.
        shifts_current: whether the teacher moves the reference points on the current map, too.
    """

    offsets: NDArray[np.float32]
    weights: NDArray[np.float32]
    previous_from_current: NDArray[np.float64] | None
    shifts_current: bool


@dataclass(frozen=True, eq=False)
class FrameContents:
    """What there is to show of one frame; None for what the cache or the data set does not have.

    Attributes:
        frame: the keyframe.
        annotated: annotations whose centre lies on the map.
        detected: the teacher's boxes, best first.
        bev_rgb: (rows, cols, 3) float64, colours of the BEV feature.
        queries: reference points.
        temporal: sampling pattern.
    """

    frame: Frame
    annotated: Boxes | None
    detected: Boxes | None
    bev_rgb: NDArray[np.float64] | None
    queries: QueryPoints | None
    temporal: TemporalSamples | None


class SceneContents:
    """The frames of one scene, read one at a time; their BEV colours have one basis."""

    def __init__(self, cache: Cache, frames: Sequence[Frame], min_score: float) -> None:
        self.grid = cache.manifest.grid
        self.frames = tuple(frames)
        self.kinds = drawable(cache.manifest).kinds
        self._cache, self._min_score = cache, min_score
        self._colors = self._fit_colors() if "bev" in self.kinds else None
        self._shifts_current = shifts_current_references(cache.manifest.teacher.architecture)
        of_scene = compute.equal(cache.frames["scene_name"], self.frames[0].scene_name)
        columns = ["sample_token", "previous_from_current", "has_previous"]
        rows = cache.frames.select(columns).filter(of_scene).to_pylist()
        self._motion = {row["sample_token"]: row["previous_from_current"] for row in rows if row["has_previous"]}
        self.read = lru_cache(maxsize=_NEIGHBOURS_KEPT)(self._read)

    def top_score(self) -> float:
        """The best score of any query in the scene."""
        logits = [self._cache.read(frame.sample_token, "query_logits").max() for frame in self.frames]
        return float(1 / (1 + np.exp(-np.max(logits))))

    def _read(self, step: int) -> FrameContents:
        frame = self.frames[step]
        return FrameContents(
            frame=frame,
            annotated=None if frame.boxes is None else on_map(frame.boxes, self.grid),
            detected=teacher_boxes(self._cache, frame.sample_token, self._min_score) if "boxes" in self.kinds else None,
            bev_rgb=None if self._colors is None else self._colors.rgb(self._cache.read(frame.sample_token, "bev")),
            queries=self._queries(frame.sample_token) if "queries" in self.kinds else None,
            temporal=self._temporal(frame.sample_token) if "attention" in self.kinds else None,
        )

    def _fit_colors(self) -> BevColors:
        spread = np.unique(np.linspace(0, len(self.frames) - 1, _MAPS_FOR_COLORS).round().astype(int))
        return fit_colors([self._cache.read(self.frames[step].sample_token, "bev") for step in spread])

    def _queries(self, token: str) -> QueryPoints:
        positions = self._cache.read(token, "query_positions")[..., :2].astype(np.float64)
        places_m = positions * self.grid.size_m[:2] + self.grid.extent_m[:2]
        logits = self._cache.read(token, "query_logits").astype(np.float64)
        return QueryPoints(places_m[0], places_m[-1], 1 / (1 + np.exp(-logits.max(axis=1))))

    def _temporal(self, token: str) -> TemporalSamples:
        motion = self._motion.get(token)
        return TemporalSamples(
            offsets=self._cache.read(token, "temporal_offsets"),
            weights=self._cache.read(token, "temporal_weights"),
            previous_from_current=None if motion is None else np.array(motion, dtype=np.float64).reshape(4, 4),
            shifts_current=self._shifts_current,
        )


def teacher_boxes(cache: Cache, sample_token: str, min_score: float) -> Boxes:
    """The teacher's detections as its published decoding gives them, from the cached logits and box codes.

    Returns:
        Boxes with a score of at least ``min_score``, best first, labels by ``CLASS_NAMES``.
    """
    logits, codes = (torch.from_numpy(cache.read(sample_token, name)) for name in ("query_logits", "query_boxes"))
    x_min, y_min, _, x_max, y_max, _ = cache.manifest.grid.extent_m
    outputs = QueryOutputs(
        features=torch.zeros(1, 1, len(logits), 1),
        positions=torch.zeros(1, 1, len(logits), 3),
        logits=logits[None, None],
        boxes=codes[None, None],
    )
    [found] = decode_queries(outputs, HeadConfig(detection_range_m=(x_min, y_min, -10.0, x_max, y_max, 10.0)))
    label_of = np.array([CLASS_NAMES.index(name) for name in cache.manifest.class_names], dtype=np.int64)
    assert found.scores is not None, "decoding scores its boxes"
    chosen = found.select(found.scores >= min_score)
    return Boxes(
        chosen.center_m,
        chosen.size_wlh_m,
        chosen.yaw_rad,
        chosen.velocity_mps,
        chosen.has_velocity,
        label_of[chosen.labels],
        chosen.scores,
    )


def on_map(boxes: Boxes, grid: BevGrid) -> Boxes:
    """The boxes whose centre lies on the map."""
    x_min, y_min, _, x_max, y_max, _ = grid.extent_m
    x, y = boxes.center_m[:, 0], boxes.center_m[:, 1]
    return boxes.select((x >= x_min) & (x <= x_max) & (y >= y_min) & (y <= y_max))


def shifts_current_references(architecture: str) -> bool:
    """Whether a teacher, by the configuration in its manifest, moves both maps' reference points with the car.

    The published BEVFormer weights were trained that way. A teacher that does not say is taken not to.
    """
    try:
        document = json.loads(architecture)
    except ValueError:  # a teacher of one's own may describe itself in words
        return False
    encoder = document.get("encoder") if isinstance(document, dict) else None
    return isinstance(encoder, dict) and encoder.get("shift_both_references") is True
