"""Earlier maps land under the cells of now: axis order, sign, rotation, and the cells that have no past."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from detectors.ego_motion import rotate_bev
from schemas.bev_grid import BevGrid
from train.ego_alignment import align_bev, past_from_current, window_from_frame

GRID = BevGrid(rows=20, cols=12, extent_m=(-12.0, -40.0, -5.0, 12.0, 40.0, 3.0))
"""Cells of 2 m along x and 4 m along y, and not square, so that no mistaken axis goes unseen."""


def pose(x_m: float, y_m: float, yaw_rad: float = 0.0) -> NDArray[np.float64]:
    """Global points from LiDAR points of a car there, heading ``yaw_rad`` left of global y."""
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[cos, -sin, 0, x_m], [sin, cos, 0, y_m], [0, 0, 1, 1.8], [0, 0, 0, 1]])


def steps_of(poses: list[NDArray[np.float64]]) -> Tensor:
    """``previous_from_current`` of one sample's frames, as the frame index has it."""
    pairs = zip(poses[:1] + poses[:-1], poses, strict=True)
    return torch.from_numpy(np.stack([np.linalg.inv(before) @ now for before, now in pairs]))[None]


def cell_of(point: NDArray[np.float64], global_from_lidar: NDArray[np.float64]) -> tuple[int, int]:
    """(row, col) of a global point in the map of a frame."""
    x_m, y_m = (np.linalg.inv(global_from_lidar) @ point)[:2]
    return int((y_m - GRID.extent_m[1]) // GRID.cell_m[1]), int((x_m - GRID.extent_m[0]) // GRID.cell_m[0])


def one_hot(row: int, col: int) -> Tensor:
    bev = torch.zeros(1, 1, *GRID.shape)
    bev[0, 0, row, col] = 1
    return bev


@pytest.mark.parametrize(
    "velocity_m",
    [(0.0, 4.0), (0.0, -8.0), (2.0, 0.0), (-4.0, 0.0), (2.0, 4.0)],
    ids=["fwd", "back", "right", "left", "both"],
)
def test_what_stands_still_stays_in_its_cell_while_the_car_drives(velocity_m: tuple[float, float]) -> None:
    poses = [pose(600 + velocity_m[0] * frame, 1600 + velocity_m[1] * frame) for frame in range(4)]
    landmark = poses[-1] @ np.array([3.0, 10.0, 0.0, 1.0])  # the centre of a cell of the last frame
    now = cell_of(landmark, poses[-1])
    places = past_from_current(steps_of(poses))
    for frame, then in enumerate(poses):
        aligned = align_bev(one_hot(*cell_of(landmark, then)), places[:, frame], GRID)
        assert aligned.inside[0, *now]
        torch.testing.assert_close(aligned.bev * aligned.inside, one_hot(*now), rtol=0, atol=1e-4)
    assert cell_of(landmark, poses[0]) != now


def test_a_turning_car() -> None:
    square = BevGrid(rows=12, cols=12, extent_m=(-12.0, -12.0, -5.0, 12.0, 12.0, 3.0))
    bev = torch.rand(1, 3, 12, 12)
    steps = steps_of([pose(0, 0), pose(0, 0, np.pi / 2)])
    aligned = align_bev(bev, past_from_current(steps)[:, 0], square)
    # The detector's own alignment, which takes the nearest cell: after a quarter turn it is exact.
    turned = rotate_bev(bev.flatten(2).transpose(1, 2), torch.tensor([90.0], dtype=torch.float64), square, None)
    expected = turned.transpose(1, 2).reshape(bev.shape)
    assert aligned.inside.all()
    torch.testing.assert_close(aligned.bev, expected, rtol=0, atol=1e-5)


@given(x_m=st.floats(-8, 8), y_m=st.floats(-20, 20), yaw_rad=st.floats(-3.2, 3.2), more=st.floats(-0.3, 0.3))
def test_a_map_of_coordinates_gives_the_coordinates_of_the_past(
    x_m: float, y_m: float, yaw_rad: float, more: float
) -> None:
    poses = [pose(1e4, 1e4, yaw_rad), pose(1e4 + x_m, 1e4 + y_m, yaw_rad + more), pose(1e4, 1e4 + y_m, more)]
    x, y = np.arange(12) * 2.0 - 11, np.arange(20) * 4.0 - 38
    coordinates = torch.from_numpy(np.stack(np.broadcast_arrays(x, y[:, None]))).float()[None]
    aligned = align_bev(coordinates, past_from_current(steps_of(poses))[:, 0], GRID)
    centers = np.stack([*np.broadcast_arrays(x, y[:, None]), np.zeros((20, 12)), np.ones((20, 12))])
    there = np.einsum("ij,jrc->irc", np.linalg.inv(poses[0]) @ poses[-1], centers)[:2]
    interior = (np.abs(there[0]) < 11) & (np.abs(there[1]) < 38)
    np.testing.assert_allclose(aligned.bev[0].numpy()[:, interior], there[:, interior], atol=2e-3)
    edge = np.maximum(np.abs(there[0]) - 12, np.abs(there[1]) - 40)
    sure = np.abs(edge) > 1e-6
    np.testing.assert_array_equal(aligned.inside[0].numpy()[sure], (edge < 0)[sure])


def test_cells_that_the_map_did_not_cover_are_outside() -> None:
    steps = steps_of([pose(0, 0), pose(0, 8)])  # two rows forward: the two foremost rows are new ground
    inside = align_bev(torch.ones(1, 1, *GRID.shape), past_from_current(steps)[:, 0], GRID).inside[0]
    assert inside[:-2].all()
    assert not inside[-2:].any()


def test_the_supervised_frame_is_where_it_is() -> None:
    steps = steps_of([pose(0, 0), pose(0, 8), pose(3, 9, 0.2)])
    places = past_from_current(steps)
    assert torch.equal(places[0, -1], torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(places[0, 0], steps[0, 1] @ steps[0, 2])


def test_gradients_pass_to_the_map_and_samples_do_not_mix() -> None:
    bev = torch.rand(2, 1, *GRID.shape, requires_grad=True)
    steps = torch.cat([steps_of([pose(0, 0), pose(0, 8)]), steps_of([pose(0, 0), pose(2, 0)])])
    align_bev(bev, past_from_current(steps)[:, 0], GRID).bev[0].sum().backward()
    assert bev.grad is not None
    assert bev.grad[0].abs().sum() > 0
    assert bev.grad[1].abs().sum() == 0


@pytest.mark.parametrize("frame", [0, 1, 3])
def test_a_frame_of_a_window_lies_where_the_poses_say_in_earlier_and_later_ones(frame: int) -> None:
    poses = [pose(600 + 3 * step, 1600 - 5 * step, 0.2 * step) for step in range(4)]
    places = window_from_frame(steps_of(poses), frame)
    expected = np.stack([np.linalg.inv(there) @ poses[frame] for there in poses])
    torch.testing.assert_close(places[0], torch.from_numpy(expected), rtol=0, atol=1e-9)
    assert torch.equal(places[0, frame], torch.eye(4, dtype=torch.float64))
