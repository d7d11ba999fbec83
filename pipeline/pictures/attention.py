"""Where temporal self-attention looks for one BEV cell: reference points, sampling points and weights in metres."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.pictures.frame_contents import FrameContents, TemporalSamples
from schemas.bev_grid import BevGrid
from schemas.boxes import CLASS_NAMES, Boxes

MOVING_MPS = 1.0
STANDING_MPS = 0.2
PREVIOUS, CURRENT = 0, 1


@dataclass(frozen=True)
class ChosenCell:
    """A BEV cell worth looking at, and why."""

    row: int
    col: int
    reason: str


@dataclass(frozen=True, eq=False)
class CellSamples:
    """One cell's sampling pattern; each source in the LiDAR frame of its own map.

    Attributes:
        center_m: (2,) float64, the cell's centre, current LiDAR frame.
        references_m: (2, 2) float64 by source: where the cell's offsets start.
        points_m: (2, head, point, 2) float64 by source.
        weights: (2, head, point) float32 by source.
    """

    center_m: NDArray[np.float64]
    references_m: NDArray[np.float64]
    points_m: NDArray[np.float64]
    weights: NDArray[np.float32]


def cell_samples(temporal: TemporalSamples, row: int, col: int, grid: BevGrid) -> CellSamples:
    """Sampling points of a cell.

    Offsets count from the reference point. On the previous map that is the cell's place moved by the ego motion, in
    the axes of the current heading, since the encoder turns the previous map; here the points are taken back to the
    previous LiDAR frame instead, where its feature was cached. On a scene's first frame both sources are the current
    map.

    Args:
        temporal: pattern of the frame.
        row: of the cell.
        col: of the cell.
        grid: of the cache.
    """
    cell_m = np.array(grid.cell_m)
    center_m = np.array(grid.extent_m[:2]) + (np.array([col, row]) + 0.5) * cell_m
    offsets_m = np.moveaxis(temporal.offsets[row, col].astype(np.float64), 1, 0) * cell_m
    around_m = center_m + offsets_m
    references_m, points_m = np.stack([center_m, center_m]), around_m.copy()
    motion = temporal.previous_from_current
    if motion is not None:
        turn, move_m = motion[:2, :2], motion[:2, 3]
        references_m[PREVIOUS] = turn @ center_m + move_m
        points_m[PREVIOUS] = around_m[PREVIOUS] @ turn.T + move_m
        if temporal.shifts_current:
            shift_m = np.linalg.solve(turn, move_m)
            references_m[CURRENT] += shift_m
            points_m[CURRENT] += shift_m
    return CellSamples(center_m, references_m, points_m, np.moveaxis(temporal.weights[row, col], 1, 0))


def choose_cells(contents: FrameContents, grid: BevGrid, wanted: tuple[tuple[int, int], ...]) -> tuple[ChosenCell, ...]:
    """The cells asked for, or one under a moving and one under a standing box.

    The box is the teacher's best, else the nearest annotated one. Where none is known to move or to stand, one box of
    any kind is taken; where there is none at all, the cell 10 m ahead.

    Args:
        contents: the frame.
        grid: of the cache.
        wanted: (row, col) of cells; those outside the grid are an error of the caller.
    """
    if wanted:
        return tuple(ChosenCell(row, col, f"cell ({row}, {col})") for row, col in wanted)
    boxes = [_best_box(contents, motion) for motion in ("moving", "standing")]
    found = [box for box in boxes if box is not None] or [box for box in [_best_box(contents, "")] if box is not None]
    cells = tuple(_cell_at(box.center_m[0, :2], grid, _in_words(box)) for box in found)
    return cells or (_cell_at(np.array([0.0, 10.0]), grid, "10 m ahead"),)


def _best_box(contents: FrameContents, motion: str) -> Boxes | None:
    """One box that moves so, or None."""
    for boxes in (contents.detected, contents.annotated):
        if boxes is None:
            continue
        chosen = boxes.select(np.array([motion in _motion(boxes, box) for box in range(len(boxes))], dtype=np.bool_))
        if len(chosen) > 0:
            order = np.linalg.norm(chosen.center_m[:, :2], axis=1) if chosen.scores is None else -chosen.scores
            return chosen.select(np.array([order.argmin()], dtype=np.int64))
    return None


def _motion(boxes: Boxes, box: int) -> str:
    """``moving``, ``standing``, or nothing where it is unknown or neither."""
    speed = np.linalg.norm(boxes.velocity_mps[box])
    if not boxes.has_velocity[box] or STANDING_MPS < speed < MOVING_MPS:
        return ""
    return "moving" if speed >= MOVING_MPS else "standing"


def _in_words(box: Boxes) -> str:
    name = f"{_motion(box, 0)} {CLASS_NAMES[box.labels[0]].replace('_', ' ')}".strip()
    speed = f", {np.linalg.norm(box.velocity_mps[0]):.1f} m/s" if name.startswith("moving") else ""
    return f"{name}{speed} ({'annotated' if box.scores is None else f'score {box.scores[0]:.2f}'})"


def _cell_at(place_m: NDArray[np.float64], grid: BevGrid, reason: str) -> ChosenCell:
    col, row = np.floor((place_m - grid.extent_m[:2]) / np.array(grid.cell_m)).astype(int).tolist()
    return ChosenCell(min(max(row, 0), grid.rows - 1), min(max(col, 0), grid.cols - 1), reason)
