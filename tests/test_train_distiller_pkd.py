"""``pkd`` is one minus Pearson's correlation, and blind to scale and shift."""

import numpy as np
import pytest
import torch
from torch import Tensor
from train_fakes import bev_spec, exact_targets, grid_of, manifest_of, student_outputs

from train.distillers.base import DistillationSetting, GroundTruth
from train.distillers.pkd import PKDDistiller, PKDOptions

GRID = grid_of(6, 5)
CHANNELS = 4


def build(options: PKDOptions | None = None, rows: int = 6, cols: int = 5, channels: int = CHANNELS) -> PKDDistiller:
    setting = DistillationSetting(grid_of(rows, cols), channels, manifest_of((bev_spec(*GRID.shape, CHANNELS),), GRID))
    return PKDDistiller(options or PKDOptions(), setting)


def loss(student: Tensor, teacher: Tensor, distiller: PKDDistiller | None = None) -> Tensor:
    (term,) = (
        (distiller or build()).losses(student_outputs(student), exact_targets(teacher, GRID), GroundTruth(())).values()
    )
    return term


def maps(batch: int = 3) -> Tensor:
    return torch.randn(batch, *GRID.shape, CHANNELS) * torch.tensor([1.0, 0.1, 5.0, 20.0]) + torch.arange(4.0)


def correlation(ours: Tensor, theirs: Tensor) -> float:
    return float(np.corrcoef(ours.ravel(), theirs.ravel())[0, 1])


def test_it_is_one_minus_the_correlation_of_channels_over_batch_and_cells() -> None:
    ours, theirs = maps(), maps()
    correlations = [correlation(ours[..., channel], theirs[..., channel]) for channel in range(CHANNELS)]
    assert loss(ours, theirs).item() == pytest.approx(1 - np.mean(correlations), rel=1e-5)


def test_its_range() -> None:
    bev = maps()
    assert loss(bev, bev).item() == pytest.approx(0, abs=1e-6)
    assert loss(bev, -bev).item() == pytest.approx(2, rel=1e-5)


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
def test_scale_and_shift_of_a_channel_do_not_matter(factor: float) -> None:
    ours, theirs = maps(), maps()
    scale, shift = factor * torch.tensor([1.0, 2.0, 0.5, 3.0]), factor * torch.tensor([0.0, -3.0, 7.0, 1.0])
    plain = loss(ours, theirs).item()
    assert loss(ours * scale + shift, theirs).item() == pytest.approx(plain, rel=1e-4)
    assert loss(ours, theirs * scale + shift).item() == pytest.approx(plain, rel=1e-4)


def test_a_constant_channel_counts_half_and_passes_no_gradient() -> None:
    ours, theirs = maps(), maps()
    ours[..., 0] = 0.1
    ours.requires_grad_()
    value = loss(ours, theirs)
    value.backward()
    others = sum(correlation(ours.detach()[..., channel], theirs[..., channel]) for channel in (1, 2, 3))
    assert value.item() == pytest.approx((0.5 + 3 - others) / 4, rel=1e-5)
    assert ours.grad is not None
    assert ours.grad.isfinite().all()
    assert ours.grad[..., 0].abs().max() == 0
    assert ours.grad[..., 1].abs().max() > 0


@pytest.mark.parametrize(
    ("options", "channels", "parameters"),
    [(PKDOptions(), 4, 0), (PKDOptions(adapter="always"), 4, 16), (PKDOptions(), 7, 28)],
)
def test_channels_are_projected_only_where_asked_or_unequal(
    options: PKDOptions, channels: int, parameters: int
) -> None:
    assert sum(values.numel() for values in build(options, channels=channels).parameters()) == parameters


@pytest.mark.parametrize("grid", ["student", "teacher"])
def test_grids_of_other_cells(grid: str) -> None:
    coarse = maps()[:, ::2, ::2]
    fine = coarse.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)[:, :6, :5]
    distiller = build(PKDOptions(grid=grid), rows=3, cols=3)
    assert loss(coarse, fine, distiller).item() < 0.5
    assert distiller.shape == ((3, 3) if grid == "student" else GRID.shape)
