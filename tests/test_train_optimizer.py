"""The learning rate is the published curve; parameter groups are the published groups."""

import pytest
import torch
from train_world import tiny_detector

from train.adapters import ChannelAdapter
from train.optimizer import build_optimizer, learning_rate, set_learning_rate
from train.options import OptimizerOptions

PUBLISHED = OptimizerOptions(cosine="per-epoch")


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 2e-4 / 3),
        (250, 2e-4 * 2 / 3),
        (500, 2e-4),
        (999, 2e-4),
        (12 * 1000, 2e-4 * (1e-3 + 0.999 / 2)),
        (23 * 1000 + 999, 2e-7 + (2e-4 - 2e-7) * 0.0042775693),  # (1 + cos(23π/24)) / 2
    ],
)
def test_the_published_schedule(step: int, expected: float) -> None:
    assert learning_rate(step, 24_000, 1000, PUBLISHED) == pytest.approx(expected, rel=1e-6)


def test_per_step_meets_per_epoch_at_epoch_starts_and_lies_below_between() -> None:
    per_step = OptimizerOptions()
    for epoch in range(1, 24):
        start = epoch * 1000
        assert learning_rate(start, 24_000, 1000, per_step) == learning_rate(start, 24_000, 1000, PUBLISHED)
        assert learning_rate(start + 500, 24_000, 1000, per_step) < learning_rate(start + 500, 24_000, 1000, PUBLISHED)


def test_the_floor_is_reached_and_held() -> None:
    options = OptimizerOptions(lr=1.0, floor=0.1, warmup_steps=0)
    assert learning_rate(100, 100, 10, options) == pytest.approx(0.1)
    assert learning_rate(1000, 100, 10, options) == pytest.approx(0.1)


def test_the_backbone_learns_slower_and_distillers_at_full_rate() -> None:
    detector, adapter = tiny_detector(), ChannelAdapter(3, 4)
    frozen = next(detector.img_neck.parameters()).requires_grad_(requires_grad=False)
    optimizer = build_optimizer(detector, adapter, OptimizerOptions())
    set_learning_rate(optimizer, 1e-3)
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            assert rates[id(parameter)] == pytest.approx(1e-4 if name.startswith("img_backbone.") else 1e-3)
    assert id(frozen) not in rates
    assert all(rates[id(parameter)] == pytest.approx(1e-3) for parameter in adapter.parameters())
    assert all(group["weight_decay"] == 0.01 for group in optimizer.param_groups)


def test_a_detector_without_trained_backbone_has_one_group() -> None:
    detector = tiny_detector()
    detector.img_backbone.requires_grad_(requires_grad=False)
    assert len(build_optimizer(detector, torch.nn.Identity(), OptimizerOptions()).param_groups) == 1
