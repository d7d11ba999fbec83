"""Queries that start from a heatmap: targets by place, peaks, viewing rays, first guesses."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.box_code import encode_boxes, from_ray_frame
from detectors.catalogue import demo_teacher
from detectors.config import BEVFormerConfig
from detectors.head import BEVFormerHead
from detectors.heatmap_loss import centre_cells, heatmap_losses, target_heatmap
from detectors.heatmap_queries import CellPredictions, HeatmapQueries, cell_boxes, highest_peaks
from detectors.query_start import FirstGuess
from detectors.targets import BoxTargets, targets_of
from schemas.bev_grid import BevGrid
from schemas.boxes import Boxes

GRID = BevGrid(rows=8, cols=10, extent_m=(-10, -8, -3, 10, 8, 3))
CPU = torch.device("cpu")


def boxes_at(places: list[tuple[float, float]], labels: list[int], size: float = 1.0) -> Boxes:
    count = len(places)
    return Boxes(
        center_m=np.array([(x, y, 0.5) for x, y in places], dtype=np.float64).reshape(count, 3),
        size_wlh_m=np.full((count, 3), float(size)),
        yaw_rad=np.linspace(-3, 3, count),
        velocity_mps=np.tile([2.0, -1.0], (count, 1)),
        has_velocity=np.ones(count, dtype=np.bool_),
        labels=np.array(labels, dtype=np.int64),
    )


def targets_at(places: list[tuple[float, float]], labels: list[int], size: float = 1.0) -> BoxTargets:
    return targets_of([boxes_at(places, labels, size)], GRID, CPU)[0]


@settings(max_examples=50)
@given(
    angle=st.floats(-math.pi, math.pi),
    distance=st.floats(0.1, 50),
    heading=st.floats(-math.pi, math.pi),
    speed=st.floats(0, 20),
)
def test_ray_frame_is_a_rotation_by_the_viewing_angle(
    angle: float, distance: float, heading: float, speed: float
) -> None:
    """An object heading at an angle to its ray, and moving that way."""
    relative_yaw = -heading - math.pi / 2
    relative = torch.tensor(
        [
            0,
            0,
            0,
            0,
            0,
            0,
            math.sin(relative_yaw),
            math.cos(relative_yaw),
            speed * math.cos(heading),
            speed * math.sin(heading),
        ]
    )
    place = distance * torch.tensor([math.cos(angle), math.sin(angle)])
    code = from_ray_frame(relative[None, None], place[None, None])[0, 0]
    yaw = -(heading + angle) - math.pi / 2
    torch.testing.assert_close(code[6:8], torch.tensor([math.sin(yaw), math.cos(yaw)]), atol=1e-4, rtol=0)
    moving = torch.tensor([speed * math.cos(heading + angle), speed * math.sin(heading + angle)])
    torch.testing.assert_close(code[8:], moving, atol=1e-3, rtol=0)


def test_cells_without_output_have_their_objects_in_the_middle() -> None:
    codes = cell_boxes(torch.zeros(1, 10, 8, 10), GRID)
    assert codes[0, 3, 7, :2].tolist() == [5.0, -1.0]
    assert not codes[0, ..., 2:].any()
    half_a_cell = torch.zeros(1, 10, 8, 10)
    half_a_cell[:, :2] = torch.tensor([0.5, -0.25])[:, None, None]
    assert cell_boxes(half_a_cell, GRID)[0, 3, 7, :2].tolist() == [6.0, -1.5]


def test_target_is_one_at_the_centre_and_falls_off() -> None:
    goal = target_heatmap(targets_at([(5.3, -1.2), (-9.99, 7.99)], [3, 0]), torch.zeros(10, 8, 10), GRID, 1)
    assert (goal == 1).nonzero().tolist() == [[0, 7, 0], [3, 3, 7]]
    sigma = 0.5  # a radius of one cell
    for row in range(8):
        for col in range(10):
            squared = (row - 3) ** 2 + (col - 7) ** 2
            assert goal[3, row, col].item() == pytest.approx(math.exp(-squared / (2 * sigma**2)), abs=1e-6)
    assert not goal[[1, 2, 4, 5, 6, 7, 8, 9]].any()


def test_larger_objects_have_wider_targets_and_neighbours_do_not_lower_each_other() -> None:
    near = [(1.0, 1.0), (5.0, 1.0)]
    small = target_heatmap(targets_at(near, [2, 2], size=1), torch.zeros(10, 8, 10), GRID, 1)
    large = target_heatmap(targets_at(near, [2, 2], size=8), torch.zeros(10, 8, 10), GRID, 1)
    assert (large >= small).all()
    assert large.sum() > small.sum()
    alone = target_heatmap(targets_at(near[:1], [2], size=8), torch.zeros(10, 8, 10), GRID, 1)
    assert (large >= alone).all()


def test_no_objects_is_an_empty_target_and_no_box_loss() -> None:
    empty = targets_at([], [])
    assert not target_heatmap(empty, torch.ones(10, 8, 10), GRID, 1).any()
    cells = CellPredictions(torch.randn(1, 10, 8, 10, requires_grad=True), torch.randn(1, 8, 10, 10))
    losses = heatmap_losses(cells, [empty], torch.ones(10), _config())
    assert losses["loss_cell_bbox"] == 0
    losses["loss_heatmap"].backward()
    assert cells.heatmap.grad is not None
    assert (cells.heatmap.grad > 0).all()


def test_a_perfect_prediction_costs_next_to_nothing() -> None:
    boxes = boxes_at([(5.3, -1.2), (-4, 3)], [3, 8])
    target = targets_of([boxes], GRID, CPU)[0]
    heatmap, codes = torch.full((1, 10, 8, 10), -12.0), torch.zeros(1, 8, 10, 10)
    for code, label, (row, col) in zip(
        encode_boxes(boxes), boxes.labels, centre_cells(target.codes, GRID), strict=True
    ):
        heatmap[0, label, row, col] = 12
        codes[0, row, col] = torch.from_numpy(code)
    perfect = heatmap_losses(CellPredictions(heatmap, codes), [target], torch.ones(10), _config())
    assert sum(perfect.values()) < 1e-4
    wrong = heatmap_losses(CellPredictions(-heatmap, codes + 1), [target], torch.ones(10), _config())
    assert wrong["loss_heatmap"] > 10
    assert wrong["loss_cell_bbox"].item() == pytest.approx(0.25 * 10)


def test_peaks_are_local_maxima_best_first() -> None:
    heatmap = torch.full((1, 2, 5, 5), -9.0)
    heatmap[0, 0, 1, 1], heatmap[0, 0, 1, 2] = 3.0, 2.0  # the second is no maximum
    heatmap[0, 1, 4, 0], heatmap[0, 1, 1, 1] = 1.0, 0.5
    label, cell, score = highest_peaks(heatmap, 3)
    assert label.tolist() == [[0, 1, 1]]
    assert cell.tolist() == [[6, 20, 6]]
    assert score.tolist() == [[3.0, 1.0, 0.5]]


def test_more_queries_than_peaks_takes_other_cells() -> None:
    heatmap = torch.arange(9.0).reshape(1, 1, 3, 3)
    _, cell, _ = highest_peaks(heatmap, 12)
    assert cell.tolist() == [[8, 7, 6, 5, 4, 3, 2, 1, 0]]


def test_corrections_of_zero_leave_the_guess() -> None:
    guess = FirstGuess(torch.randn(1, 4, 10), torch.randn(1, 4, 10))
    logits, change = guess.corrected(torch.zeros(1, 4, 10), torch.zeros(1, 4, 10))
    assert torch.equal(logits, guess.logits)
    assert torch.equal(change[..., (2, 3, 5, 6, 7, 8, 9)], guess.boxes[..., (2, 3, 5, 6, 7, 8, 9)])
    assert not change[..., (0, 1, 4)].any()


@torch.no_grad()
def test_an_untrained_decoder_returns_what_the_cells_say() -> None:
    config = _config()
    head = BEVFormerHead(config).eval()
    bev = torch.randn(2, 80, 64)
    queries, cells = head.detect(bev)
    assert cells is not None
    label, cell, score = highest_peaks(cells.heatmap, config.decoder.queries)
    expected = cells.boxes.flatten(1, 2).gather(1, cell[..., None].expand(-1, -1, 10))
    inside = (expected[..., :2].abs() < torch.tensor([9.9, 7.9])).all(-1)
    for layer in range(config.decoder.layers):
        torch.testing.assert_close(queries.boxes[layer][inside], expected[inside], atol=1e-2, rtol=1e-3)
        torch.testing.assert_close(queries.logits[layer].gather(-1, label[..., None])[..., 0], score)
        assert (queries.logits[layer].argmax(-1) == label).float().mean() > 0.99


def test_no_gradient_of_the_decoder_reaches_heatmap_and_cell_boxes() -> None:
    queries = HeatmapQueries(_config())
    start, _ = queries(torch.randn(1, 80, 64))
    assert start.guess is not None
    assert not start.reference.requires_grad
    assert not start.guess.boxes.requires_grad
    (start.content.sum() + start.position.sum()).backward()
    assert all(parameter.grad is None for part in (queries.heatmap, queries.boxes) for parameter in part.parameters())
    assert all(parameter.grad is not None for parameter in queries.shared.parameters())


def _config() -> BEVFormerConfig:
    teacher = demo_teacher()
    return teacher.model_copy(update={"grid": GRID, "decoder": teacher.decoder.model_copy(update={"queries": 20})})
