"""Backbone and neck over many images, in passes that fit a CPU's caches."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

PIXELS_PER_CPU_PASS = 1 << 21
"""One 928×1600 image at a time, all images of a small model together. Six large images at once take 0.8 GB more and,
because every map then leaves the caches, a fifth more time."""


def image_features(
    backbone: nn.Module, neck: nn.Module, images: Float[Tensor, "n 3 h w"]
) -> tuple[Float[Tensor, "n c _ _"], ...]:
    """One map per feature level, finest first.

    Images are independent of each other except where batch norms learn, so inference on a CPU may take them in turn.
    """
    in_turn = images.device.type == "cpu" and not torch.is_grad_enabled() and not backbone.training
    per_pass = max(1, PIXELS_PER_CPU_PASS // (images.shape[-2] * images.shape[-1])) if in_turn else len(images)
    passes = [neck(backbone(part)) for part in torch.split(images, per_pass)]
    if len(passes) == 1:
        maps: tuple[Tensor, ...] = passes[0]
        return maps
    return tuple(torch.cat(level) for level in zip(*passes, strict=True))
