"""The sampling primitive of deformable attention, and how its learned offsets start.

Zhu et al., "Deformable DETR" (2021), equation 3, without the query-dependent parts: those are the callers'.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.nn import functional


def sample_deformable(
    maps: Sequence[Float[Tensor, "batch channel _ _"]],
    locations: Float32[Tensor, "batch query head level point 2"],
    weights: Float32[Tensor, "batch query head level point"],
) -> Float32[Tensor, "batch query channel"]:
    """Weighted sum of bilinear samples; head k reads and fills the k-th equal share of the channels.

    Args:
        maps: one per level, each of its own size, channels grouped by head.
        locations: (x, y) normalised so that 0 and 1 are the outer edges of the first and last pixel; outside is zero.
        weights: factor of each sample.

    Always computed in float32, as the published code does: half precision would move the sampling points.
    """
    batch, count, heads, _, points = weights.shape
    channels = maps[0].shape[1]
    # (batch, head) becomes the batch of grid_sample, so one call per level serves all heads; queries lie innermost, so
    # that the sum over points runs along whole rows of memory.
    grids = (2 * locations - 1).permute(3, 0, 2, 4, 1, 5)
    factors = weights.permute(3, 0, 2, 4, 1)
    total = torch.zeros((), device=locations.device)
    for level, level_map in enumerate(maps):
        values = level_map.float().reshape(batch * heads, channels // heads, *level_map.shape[2:])
        grid = grids[level].reshape(batch * heads, points, count, 2)
        samples = functional.grid_sample(values, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        total = total + weighted_sum(samples, factors[level].reshape(batch * heads, points, count))
    return total.reshape(batch, channels, count).transpose(1, 2)


def weighted_sum(
    samples: Float[Tensor, "n channel point query"], factors: Float[Tensor, "n point query"]
) -> Float[Tensor, "n channel query"]:
    """``(samples * factors[:, None]).sum(2)``, in half its time on a CPU: the products are never written down."""
    total: Tensor = _WeightedSum.apply(samples, factors)  # type: ignore[no-untyped-call]
    return total


class _WeightedSum(torch.autograd.Function):
    """Point by point, so that what is written stays in the caches."""

    @staticmethod
    def forward(ctx: Any, samples: Tensor, factors: Tensor) -> Tensor:
        ctx.save_for_backward(samples, factors)
        total = samples[:, :, 0] * factors[:, None, 0]
        for point in range(1, samples.shape[2]):
            total.addcmul_(samples[:, :, point], factors[:, None, point])
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        samples, factors = ctx.saved_tensors
        of_samples, of_factors = torch.empty_like(samples), torch.empty_like(factors)
        for point in range(samples.shape[2]):
            torch.mul(gradient, factors[:, None, point], out=of_samples[:, :, point])
            torch.sum(gradient * samples[:, :, point], dim=1, out=of_factors[:, point])
        return of_samples, of_factors


def softmax_of_few(logits: Float32[Tensor, "*group sample"]) -> Float32[Tensor, "*group sample"]:
    """Softmax over a last dimension of a few numbers.

    Along the innermost dimension torch's CPU kernel takes a row at a time: with four numbers in each, that is a tenth
    of its speed along another.
    """
    return logits.movedim(-1, 0).softmax(0).movedim(0, -1)


def project_to_map(
    linear: nn.Linear, tokens: Float[Tensor, "batch cell channel"], shape: tuple[int, int]
) -> Float[Tensor, "batch out rows cols"]:
    """Apply a linear layer to tokens and leave the result as a map, the layout sampling reads, without a transpose."""
    values = torch.matmul(linear.weight, tokens.transpose(1, 2)) + linear.bias[:, None]
    return values.reshape(len(values), -1, *shape)


def project_map(
    linear: nn.Linear, level_map: Float[Tensor, "batch channel rows cols"]
) -> Float[Tensor, "batch out rows cols"]:
    """Apply a linear layer to every pixel of a map."""
    return functional.conv2d(level_map, linear.weight[:, :, None, None], linear.bias)


def init_sampling(offsets: nn.Linear, weights: nn.Linear, heads: int, points: int) -> None:
    """Start as the published models do: head k looks in direction 2πk/heads, point i at distance i + 1, all alike.

    The unit of distance is a pixel, measured along the larger of its two components.
    """
    angles = torch.arange(heads) * (2 * math.pi / heads)
    directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
    directions = directions / directions.abs().amax(dim=-1, keepdim=True)
    groups = offsets.bias.numel() // (heads * points * 2)
    pattern = directions[:, None, None, :] * torch.arange(1, points + 1)[:, None]
    with torch.no_grad():
        offsets.weight.zero_()
        offsets.bias.copy_(pattern.expand(heads, groups, points, 2).flatten())
        weights.weight.zero_()
        weights.bias.zero_()


def init_projections(*projections: nn.Linear) -> None:
    """Start the layers around the sampling as published: Xavier-uniform weights, no bias."""
    for projection in projections:
        nn.init.xavier_uniform_(projection.weight)
        nn.init.zeros_(projection.bias)
