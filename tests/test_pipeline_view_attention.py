"""Where temporal attention looks, in metres: checked against the encoder's own geometry and its published start."""

import numpy as np
import pytest
import torch
from train_world import tiny_config, tiny_detector, tiny_tables

from detectors.ego_motion import map_shift
from detectors.reference_points import cell_centers
from pipeline.pictures.attention import CURRENT, PREVIOUS, cell_samples, choose_cells
from pipeline.pictures.attention_drawing import window_m
from pipeline.pictures.frame_contents import FrameContents, TemporalSamples, shifts_current_references
from pipeline.pictures.options import parse_cells
from schemas.bev_grid import BevGrid
from schemas.boxes import Boxes
from schemas.errors import RecipeError

GRID = BevGrid(rows=9, cols=8, extent_m=(-16.0, -18.0, -5.0, 16.0, 18.0, 3.0))
HEADS, POINTS = 3, 2


def samples_of(motion: np.ndarray | None, *, shifts_current: bool = False) -> TemporalSamples:
    rng = np.random.default_rng(0)
    shape = (*GRID.shape, HEADS, 2, POINTS)
    offsets = rng.normal(size=(*shape, 2)).astype(np.float32)
    return TemporalSamples(offsets, rng.random(shape, dtype=np.float32), motion, shifts_current)


def planar_motion(right_m: float, forward_m: float, turned_deg: float) -> np.ndarray:
    """``previous_from_current`` of a car that moved so, in the axes of its present heading, having turned left."""
    motion = np.eye(4)
    cos, sin = np.cos(np.deg2rad(turned_deg)), np.sin(np.deg2rad(turned_deg))
    motion[:2, :2] = [[cos, -sin], [sin, cos]]
    motion[:2, 3] = motion[:2, :2] @ [right_m, forward_m]
    return motion


def test_without_motion_both_sources_start_at_the_cell() -> None:
    temporal = samples_of(None)
    found = cell_samples(temporal, 6, 1, GRID)
    assert found.center_m.tolist() == [-16 + 1.5 * 4, -18 + 6.5 * 4]
    assert np.array_equal(found.references_m, np.stack([found.center_m, found.center_m]))
    for source in (PREVIOUS, CURRENT):
        for head in range(HEADS):
            expected = found.center_m + temporal.offsets[6, 1, head, source].astype(np.float64) * 4
            np.testing.assert_allclose(found.points_m[source, head], expected, rtol=1e-12)
            assert np.array_equal(found.weights[source, head], temporal.weights[6, 1, head, source])


@pytest.mark.parametrize("turned_deg", [0.0, 12.0, -30.0])
def test_points_on_the_previous_map_are_those_the_encoder_reads(turned_deg: float) -> None:
    """The encoder shifts the reference points and reads a previous map that it turned about the map's centre."""
    right_m, forward_m, yaw_rad = 0.7, 5.0, 0.4
    east = forward_m * np.cos(yaw_rad) + right_m * np.sin(yaw_rad)
    north = forward_m * np.sin(yaw_rad) - right_m * np.cos(yaw_rad)
    can_bus = torch.zeros(1, 18, dtype=torch.float64)
    can_bus[0, 0], can_bus[0, 1], can_bus[0, 16], can_bus[0, 17] = east, north, yaw_rad, turned_deg
    row, col = 5, 2
    temporal = samples_of(planar_motion(right_m, forward_m, turned_deg))

    size_cells = np.array([GRID.cols, GRID.rows])
    reference = (cell_centers(GRID, torch.device("cpu"))[row * GRID.cols + col] + map_shift(can_bus, GRID)[0]).numpy()
    aligned = reference * size_cells + temporal.offsets[row, col, :, PREVIOUS]
    from_center_m = (aligned - size_cells / 2) * np.array(GRID.cell_m)
    cos, sin = np.cos(np.deg2rad(turned_deg)), np.sin(np.deg2rad(turned_deg))
    expected = (
        from_center_m @ np.array([[cos, -sin], [sin, cos]]).T
    )  # what rotate_bev does to cells, map centre at 0, 0

    found = cell_samples(temporal, row, col, GRID)
    np.testing.assert_allclose(found.points_m[PREVIOUS], expected, atol=1e-4)
    assert np.array_equal(found.references_m[CURRENT], found.center_m)


def test_a_teacher_that_shifts_both_references_is_drawn_so() -> None:
    motion = planar_motion(0.5, 3.0, 20.0)
    kept = cell_samples(samples_of(motion), 4, 4, GRID)
    shifted = cell_samples(samples_of(motion, shifts_current=True), 4, 4, GRID)
    np.testing.assert_allclose(
        shifted.points_m[CURRENT] - kept.points_m[CURRENT], np.broadcast_to([0.5, 3.0], (HEADS, POINTS, 2))
    )
    assert np.array_equal(shifted.points_m[PREVIOUS], kept.points_m[PREVIOUS])
    config = tiny_config()
    both = config.model_copy(update={"encoder": config.encoder.model_copy(update={"shift_both_references": True})})
    assert shifts_current_references(both.model_dump_json())
    assert not shifts_current_references(config.model_dump_json())
    assert not shifts_current_references('{"layers": 6}')
    assert not shifts_current_references('"a name"')
    assert not shifts_current_references("a teacher described in words")


def test_the_published_start_is_a_square_ring_of_directions() -> None:
    """Untrained weights: head k looks along 2πk/heads, point i lies i + 1 cells out on the square around the cell."""
    detector = tiny_detector()
    grid, encoder = detector.config.grid, detector.config.encoder
    attention = detector.pts_bbox_head.transformer.encoder.layers[0].attentions[0]
    bias = attention.sampling_offsets.bias.detach().numpy().reshape(encoder.heads, 2, encoder.temporal_points, 2)
    offsets = np.broadcast_to(bias, (*grid.shape, *bias.shape)).astype(np.float32)
    weights = np.full(offsets.shape[:-1], 1 / encoder.temporal_points, dtype=np.float32)
    found = cell_samples(TemporalSamples(offsets, weights, None, shifts_current=False), 3, 2, grid)
    cells_out = np.abs((found.points_m - found.center_m) / grid.cell_m).max(axis=-1)
    np.testing.assert_allclose(
        cells_out, np.broadcast_to(np.arange(1, encoder.temporal_points + 1), cells_out.shape), rtol=1e-5
    )
    assert window_m(found, grid) > encoder.temporal_points * max(grid.cell_m)


def boxes(speeds: list[float], places: list[float], scores: list[float] | None = None) -> Boxes:
    count = len(speeds)
    return Boxes(
        center_m=np.array([[place, 0.5, 0.0] for place in places]).reshape(count, 3),
        size_wlh_m=np.ones((count, 3)),
        yaw_rad=np.zeros(count),
        velocity_mps=np.array([[speed, 0.0] for speed in speeds]).reshape(count, 2),
        has_velocity=~np.isnan(speeds),
        labels=np.zeros(count, dtype=np.int64),
        scores=None if scores is None else np.array(scores),
    )


@pytest.fixture(scope="module")
def contents_of(tmp_path_factory: pytest.TempPathFactory):
    tables = tiny_tables(tmp_path_factory.mktemp("tables"))
    frame = tables.frames("scene-0001")[0]
    return lambda annotated, detected: FrameContents(frame, annotated, detected, None, None, None)


def test_cells_lie_under_the_surest_moving_and_standing_box(contents_of) -> None:
    detected = boxes([5.0, 6.0, 0.0], [1.0, -3.0, 9.0], [0.5, 0.9, 0.4])
    annotated = boxes([4.0, 0.1], [2.0, -1.0])
    moving, standing = choose_cells(contents_of(annotated, detected), GRID, ())
    assert (moving.row, moving.col, moving.reason) == (4, 3, "moving car, 6.0 m/s (score 0.90)")
    assert (standing.row, standing.col, standing.reason) == (4, 6, "standing car (score 0.40)")


def test_annotations_stand_in_nearest_first(contents_of) -> None:
    annotated = boxes([4.0, 7.0, 0.1], [10.0, 2.0, -5.0])
    moving, standing = choose_cells(contents_of(annotated, boxes([], [], [])), GRID, ())
    assert (moving.col, moving.reason) == (4, "moving car, 7.0 m/s (annotated)")
    assert (standing.col, standing.reason) == (2, "standing car (annotated)")


def test_a_box_of_unknown_speed_or_a_fixed_cell_is_better_than_none(contents_of) -> None:
    [cell] = choose_cells(contents_of(boxes([np.nan], [13.0]), None), GRID, ())
    assert (cell.col, cell.reason) == (7, "car (annotated)")
    [cell] = choose_cells(contents_of(None, None), GRID, ())
    assert (cell.row, cell.col, cell.reason) == (7, 4, "10 m ahead")


def test_cells_asked_for_are_taken(contents_of) -> None:
    chosen = choose_cells(contents_of(boxes([5.0], [1.0]), None), GRID, ((1, 2), (8, 7)))
    assert [(cell.row, cell.col) for cell in chosen] == [(1, 2), (8, 7)]


@pytest.mark.parametrize(("text", "cells"), [("20,21", ((20, 21),)), ("1,2; 3 ,4", ((1, 2), (3, 4)))])
def test_cells_as_typed(text: str, cells: tuple[tuple[int, int], ...]) -> None:
    assert parse_cells(text) == cells


@pytest.mark.parametrize("text", ["", "20", "1,2;", "1,2,3", "-1,2", "a,b"])
def test_cells_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match=r"expected rows and columns as in ARGS=.--cells '20,20;31,8'"):
        parse_cells(text)
