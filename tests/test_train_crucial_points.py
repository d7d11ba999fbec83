"""Nine points of each box: where they lie, and which cells they read."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from train_fakes import EXTENT_M, boxes_of, grid_of

from train.crucial_points import crucial_points, nine_points_m

GRID = grid_of(16, 16)
CAR = [12.8 + 3.2, -6.4 + 3.2, -1, 2, 4.6, 1.7, 0.3, 0, 0]
"""In the middle of the cell in row 7, column 10."""


@settings(max_examples=30)
@given(x=st.floats(-40, 40), y=st.floats(-40, 40), yaw=st.floats(-3.1, 3.1))
def test_nine_points_are_the_box_from_above(x: float, y: float, yaw: float) -> None:
    (points,) = nine_points_m(boxes_of([[x, y, 0, 2, 5, 1, yaw, 0, 0]]))
    heading = -yaw - np.pi / 2
    away = points - [x, y]
    along = away @ [np.cos(heading), np.sin(heading)]
    across = away @ [-np.sin(heading), np.cos(heading)]
    np.testing.assert_allclose(along, [2.5, 2.5, -2.5, -2.5, 0, 2.5, 0, -2.5, 0], atol=1e-6)
    np.testing.assert_allclose(across, [1, -1, -1, 1, 0, 0, -1, 0, 1], atol=1e-6)


@pytest.mark.parametrize(("swap", "row", "col"), [(False, 7, 10), (True, 10, 7)])
def test_a_box_reads_the_cell_it_stands_on(swap: bool, row: int, col: int) -> None:
    bev = torch.zeros(1, 1, 16, 16)
    bev[0, 0, row, col] = 1
    read = crucial_points([boxes_of([CAR])], GRID, legacy_swap=swap).read(bev)
    assert read[0, 0, 4].item() == pytest.approx(1, abs=1e-5)


def test_every_cell_size_is_read_at_the_same_ground() -> None:
    points = crucial_points([boxes_of([CAR])], GRID, legacy_swap=False)

    def ramp(rows: int, cols: int) -> Tensor:
        x = (torch.arange(cols) + 0.5) / cols
        y = (torch.arange(rows) + 0.5) / rows
        return torch.stack([x.expand(rows, cols), y[:, None].expand(rows, cols)])[None]

    torch.testing.assert_close(points.read(ramp(16, 16)), points.read(ramp(50, 20)))


def test_only_places_on_the_map_count() -> None:
    half_out = [EXTENT_M[3], 0, 0, 2, 4, 1, -np.pi / 2, 0, 0]  # heads out of the map, its centre on the edge
    outside = [70, 0, 0, 2, 4, 1, 0, 0, 0]
    boxes = [boxes_of([half_out, outside]), boxes_of([])]
    points = crucial_points(boxes, GRID, legacy_swap=False)
    assert points.counts.sum(dim=-1).tolist() == [[6, 0], [0, 0]]
    assert crucial_points(boxes, GRID, legacy_swap=True).counts.sum(dim=-1).tolist() == [[9, 9], [0, 0]]
