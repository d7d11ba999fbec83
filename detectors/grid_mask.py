"""GridMask (Chen et al., arXiv:2001.04086) as the published BEVFormer training applies it to the current frame."""

import torch
from jaxtyping import Float
from torch import Tensor

_CANVAS = 1.5
_STRIPE = 0.5


def grid_mask(
    images: Float[Tensor, "batch camera 3 height width"], probability: float
) -> Float[Tensor, "batch camera 3 height width"]:
    """With the given probability, keep only a grid of stripes of every image; one grid for the whole batch.

    Draws from PyTorch's default CPU generator. The published mask is inverted: the stripes are what is kept.
    """
    if probability == 0 or torch.rand(()).item() >= probability:
        return images
    height, width = images.shape[-2:]
    period = int(torch.randint(2, height, ()))
    stripe = min(max(int(period * _STRIPE + 0.5), 1), period - 1)
    kept = [_stripes(size, period, stripe) for size in (height, width)]
    return images * (kept[0][:, None] | kept[1][None, :]).to(images)


def _stripes(size: int, period: int, stripe: int) -> Tensor:
    """Which rows (or columns) of the image lie in a stripe, cut from the middle of a larger canvas.

    As published, the canvas has as many stripes as fit it whole, wherever the first one starts.
    """
    canvas = int(_CANVAS * size)
    phase = int(torch.randint(0, period, ()))
    place = torch.arange(canvas) - phase
    inside = (place >= 0) & (place % period < stripe) & (place // period < canvas // period)
    start = (canvas - size) // 2
    return inside[start : start + size]
