"""Modulated deformable 3×3 convolution (Zhu et al., "Deformable ConvNets v2", arXiv:1811.11168)."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

KERNEL = 3
TAPS = KERNEL * KERNEL


class DeformableConv2d(nn.Module):
    """A 3×3 convolution whose nine taps move by learned offsets and are weighted by learned masks; no bias.

    With the taps sampled side by side into an image three times as high and wide, what remains is an ordinary 3×3
    convolution of stride 3. Every convolution kernel is tuned for that; a matrix product over gathered columns, the
    usual way, took three times as long on the CPUs we measured.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, KERNEL, KERNEL))
        self.conv_offset = nn.Conv2d(in_channels, 3 * TAPS, KERNEL, stride=stride, padding=1)

    def forward(self, features: Float[Tensor, "n in_channels _ _"]) -> Float[Tensor, "n out_channels rows cols"]:
        """Convolve at the positions that ``conv_offset`` asks for."""
        return functional.conv2d(self.sample_taps(features), self.weight, stride=KERNEL)

    def sample_taps(self, features: Float[Tensor, "n c _ _"]) -> Float[Tensor, "n c tap_rows tap_cols"]:
        """Each output position's nine masked samples, as a 3×3 patch; outside the image is zero. Always float32.

        ``conv_offset`` gives 27 channels: (dy, dx) of each tap in row-major order, then nine mask logits. Positions
        need float32: in bfloat16 column 99 and column 99.2 are the same.
        """
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            offsets = self.conv_offset(features)
            rows, cols = _tap_positions(offsets[:, : 2 * TAPS], self.stride)
            mask = _taps_last(offsets[:, 2 * TAPS :].sigmoid())
            return _bilinear_samples(features, rows, cols, mask)


def _taps_last(values: Float[Tensor, "n taps rows cols"]) -> Float[Tensor, "n rows 3 cols 3"]:
    """One value per tap, in the memory order of the tripled image."""
    n, _, rows, cols = values.shape
    return values.reshape(n, KERNEL, KERNEL, rows, cols).permute(0, 3, 1, 4, 2)


def _tap_positions(
    offsets: Float[Tensor, "n 18 rows cols"], stride: int
) -> tuple[Float[Tensor, "n rows 3 cols 3"], Float[Tensor, "n rows 3 cols 3"]]:
    """Where each tap samples, in pixels of the input: row and column."""
    rows, cols = offsets.shape[-2:]
    tap = torch.arange(-1, KERNEL - 1, device=offsets.device)
    tap_rows = torch.arange(rows, device=offsets.device)[:, None] * stride + tap
    tap_cols = torch.arange(cols, device=offsets.device)[:, None] * stride + tap
    return (
        _taps_last(offsets[:, 0::2]) + tap_rows[:, :, None, None],
        _taps_last(offsets[:, 1::2]) + tap_cols,
    )


def _bilinear_samples(
    features: Float[Tensor, "n c height width"],
    rows: Float[Tensor, "n h 3 w 3"],
    cols: Float[Tensor, "n h 3 w 3"],
    mask: Float[Tensor, "n h 3 w 3"],
) -> Float[Tensor, "n c tap_rows tap_cols"]:
    """Masked bilinear samples, zero outside, laid out as the tripled image (channels last in memory).

    A sample is the weighted sum of four pixels, which is what ``embedding_bag`` computes in one pass over contiguous
    channels, without writing the four pixels anywhere.
    """
    n, channels, height, width = features.shape
    top, left = rows.floor(), cols.floor()
    below, right = rows - top, cols - left
    corners = [
        _corner(top, left, mask * (1 - below) * (1 - right), (height, width)),
        _corner(top, left + 1, mask * (1 - below) * right, (height, width)),
        _corner(top + 1, left, mask * below * (1 - right), (height, width)),
        _corner(top + 1, left + 1, mask * below * right, (height, width)),
    ]
    image_start = torch.arange(n, device=features.device).view(n, 1, 1, 1, 1, 1) * (height * width)
    pixels = torch.stack([pixel for pixel, _ in corners], dim=-1) + image_start
    weights = torch.stack([weight for _, weight in corners], dim=-1)
    samples = functional.embedding_bag(
        pixels.view(-1, 4),
        features.permute(0, 2, 3, 1).reshape(-1, channels),
        mode="sum",
        per_sample_weights=weights.view(-1, 4),
    )
    return samples.view(n, rows.shape[1] * KERNEL, rows.shape[3] * KERNEL, channels).permute(0, 3, 1, 2)


def _corner(
    row: Float[Tensor, "*positions"],
    col: Float[Tensor, "*positions"],
    weight: Float[Tensor, "*positions"],
    size: tuple[int, int],
) -> tuple[Int64[Tensor, "*positions"], Float[Tensor, "*positions"]]:
    """Index of a pixel within its image and its weight; outside pixels get weight 0 and some valid index.

    The weight is multiplied, not selected, so that a NaN position gives a NaN sample and never an index.
    """
    height, width = size
    inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)
    pixel = torch.where(inside, row * width + col, 0).long()
    return pixel, weight * inside
