"""Resizing keeps every cell where it is in metres; ``Restore`` is what it says for each ratio."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from train.adapters import ChannelAdapter, Restore, resize_bev

sizes = st.integers(1, 17)


def ramp(rows: int, cols: int) -> torch.Tensor:
    """A map whose value is its place, so that a resized one must hold the places of the new centres."""
    y = (torch.arange(rows) + 0.5) / rows
    x = (torch.arange(cols) + 0.5) / cols
    return (3 * y[:, None] - 2 * x[None, :])[None, None]


@given(rows=sizes, cols=sizes, new_rows=sizes, new_cols=sizes)
def test_a_constant_stays_and_a_mean_is_kept_when_cells_grow(rows, cols, new_rows, new_cols) -> None:
    torch.testing.assert_close(
        resize_bev(torch.full((1, 1, rows, cols), 7.0), (new_rows, new_cols)),
        torch.full((1, 1, new_rows, new_cols), 7.0),
    )
    if new_rows <= rows and new_cols <= cols:
        bev = torch.arange(float(rows * cols)).reshape(1, 1, rows, cols)
        torch.testing.assert_close(resize_bev(bev, (new_rows, new_cols)).mean(), bev.mean(), rtol=1e-4, atol=1e-4)


@given(rows=sizes, cols=sizes, new_rows=sizes, new_cols=sizes)
def test_places_are_kept(rows, cols, new_rows, new_cols) -> None:
    """Exact between the outermost old centres where cells shrink or grow by a whole factor, else to 1/4 old cell."""
    resized, expected = resize_bev(ramp(rows, cols), (new_rows, new_cols)), ramp(new_rows, new_cols)
    y, x = (torch.arange(new_rows) + 0.5) / new_rows, (torch.arange(new_cols) + 0.5) / new_cols
    inside_y = ((y >= 0.5 / rows) & (y <= 1 - 0.5 / rows)) | torch.tensor(new_rows <= rows)
    inside_x = ((x >= 0.5 / cols) & (x <= 1 - 0.5 / cols)) | torch.tensor(new_cols <= cols)
    inside = (inside_y[:, None] & inside_x[None, :])[None, None]
    exact = (new_rows >= rows or rows % new_rows == 0) and (new_cols >= cols or cols % new_cols == 0)
    tolerance = 1e-5 if exact else 0.25 * (3 / rows + 2 / cols)
    torch.testing.assert_close(resized[inside], expected[inside], atol=tolerance, rtol=0)


def test_an_equal_grid_is_left_alone_and_halving_is_the_mean_of_four() -> None:
    bev = torch.randn(2, 3, 6, 4)
    assert resize_bev(bev, (6, 4)) is bev
    torch.testing.assert_close(resize_bev(bev, (3, 2)), torch.nn.functional.avg_pool2d(bev, 2))


def test_gradients_pass_through_a_resize() -> None:
    bev = torch.randn(1, 2, 4, 5, requires_grad=True)
    resize_bev(bev, (7, 3)).square().sum().backward()
    assert bev.grad is not None
    assert (bev.grad != 0).all()


@pytest.mark.parametrize(
    ("student", "teacher", "deconvolutions", "convolutions"),
    [
        ((4, 5, 5), (6, 20, 20), 2, 1),
        ((4, 10, 10), (6, 20, 20), 1, 1),
        ((6, 10, 10), (6, 15, 15), 0, 1),
        ((4, 20, 20), (6, 20, 20), 0, 1),
        ((6, 20, 20), (6, 20, 20), 0, 0),
        ((6, 40, 40), (6, 20, 20), 0, 1),
        ((4, 5, 10), (6, 20, 20), 1, 1),
    ],
)
def test_restore_is_built_by_ratio(student, teacher, deconvolutions, convolutions) -> None:
    restore = Restore(student, teacher)
    kinds = [type(module).__name__ for module in restore.modules()]
    assert kinds.count("ConvTranspose2d") == kinds.count("BatchNorm2d") == deconvolutions
    assert kinds.count("Conv2d") == convolutions
    assert restore(torch.randn(2, *student)).shape == (2, *teacher)


def test_the_channel_adapter_projects_each_cell_alike() -> None:
    adapter = ChannelAdapter(3, 5)
    bev = torch.randn(1, 3, 2, 2)
    expected = (
        torch.einsum("oc,bcyx->boyx", adapter.project.weight[:, :, 0, 0], bev) + adapter.project.bias[:, None, None]
    )
    torch.testing.assert_close(adapter(bev), expected)
