"""The long-term target: equal to a loop that spells the formula out, and exact where there is no past."""

import math

import pytest
import torch
from torch import Tensor

from train.ego_alignment import AlignedBev
from train.temporal_fusion import fuse_bev, fuse_queries


def frames(count: int, batch: int = 2, channels: int = 5, rows: int = 4, cols: int = 3) -> list[AlignedBev]:
    return [
        AlignedBev(torch.randn(batch, channels, rows, cols), torch.rand(batch, rows, cols) < 0.6) for _ in range(count)
    ]


def by_loops(current: Tensor, earlier: list[AlignedBev], temperature: float) -> Tensor:
    target = torch.zeros_like(current)
    batch, channels, rows, cols = current.shape
    for sample in range(batch):
        for row in range(rows):
            for col in range(cols):
                here = current[sample, :, row, col]
                seen = [here] + [f.bev[sample, :, row, col] for f in earlier if f.inside[sample, row, col]]
                scores = [math.exp(float(here @ other) / math.sqrt(channels) / temperature) for other in seen]
                mixed = sum(score * other for score, other in zip(scores, seen, strict=True))
                target[sample, :, row, col] = mixed / sum(scores)
    return target


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_cells_attend_to_their_own_past(temperature: float) -> None:
    current, earlier = torch.randn(2, 5, 4, 3), frames(3)
    fused = fuse_bev(current, earlier, temperature)
    torch.testing.assert_close(fused, by_loops(current, earlier, temperature))


def test_one_frame_is_its_own_target_to_the_last_bit() -> None:
    current = torch.randn(2, 5, 4, 3)
    assert torch.equal(fuse_bev(current, []), current)


def test_a_cell_without_a_past_is_its_own_target_whatever_lies_there() -> None:
    current, earlier = torch.randn(2, 5, 4, 3), frames(2)
    for frame in earlier:
        frame.inside[:, 0] = False
        frame.bev[:, :, 0] = torch.tensor([torch.inf, torch.nan, 1e30])
    fused = fuse_bev(current, earlier)
    assert torch.equal(fused[:, :, 0], current[:, :, 0])
    assert fused.isfinite().all()


def test_strong_features_do_not_overflow() -> None:
    current = torch.full((1, 2, 1, 1), 100.0)
    earlier = AlignedBev(torch.full((1, 2, 1, 1), -100.0), torch.ones(1, 1, 1, dtype=torch.bool))
    torch.testing.assert_close(fuse_bev(current, [earlier]), current)


def test_queries_attend_to_those_of_each_earlier_frame() -> None:
    stack, valid = torch.randn(2, 3, 6, 4), torch.tensor([[True, True, True], [False, True, True]])
    fused = fuse_queries(stack, valid, temperature=2.0)
    for sample, used in enumerate(([0, 1], [1])):
        now = stack[sample, -1]
        found = [now] + [(now @ stack[sample, f].T / 2 / 2.0).softmax(-1) @ stack[sample, f] for f in used]
        torch.testing.assert_close(fused[sample], torch.stack(found).mean(0))


def test_queries_without_a_past_are_their_own_target_to_the_last_bit() -> None:
    stack = torch.randn(2, 3, 6, 4)
    assert torch.equal(fuse_queries(stack[:, -1:], torch.ones(2, 1, dtype=torch.bool)), stack[:, -1])
    at_start = torch.tensor([[False, False, True]] * 2)
    stack[:, :2] = torch.nan
    assert torch.equal(fuse_queries(stack, at_start), stack[:, -1])


def test_the_target_takes_no_gradient() -> None:
    current = torch.randn(1, 2, 1, 1, requires_grad=True)
    assert not fuse_bev(current, []).requires_grad
    assert not fuse_queries(
        current.flatten(2).transpose(1, 2)[:, None], torch.ones(1, 1, dtype=torch.bool)
    ).requires_grad
