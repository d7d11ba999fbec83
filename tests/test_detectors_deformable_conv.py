"""Deformable convolution against a loop over positions and taps, and at the edges of its domain."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from detectors.deformable_conv import DeformableConv2d


def deformable_reference(conv: DeformableConv2d, features: Tensor) -> Tensor:
    """Zhu et al. 2019, equation 1, one output position and one tap at a time."""
    offsets = functional.conv2d(features, conv.conv_offset.weight, conv.conv_offset.bias, conv.stride, padding=1)
    n, _, rows, cols = offsets.shape
    output = features.new_zeros(n, conv.weight.shape[0], rows, cols)
    for i, row, col, tap in np.ndindex(n, rows, cols, 9):
        y = row * conv.stride - 1 + tap // 3 + offsets[i, 2 * tap, row, col]
        x = col * conv.stride - 1 + tap % 3 + offsets[i, 2 * tap + 1, row, col]
        sample = offsets[i, 18 + tap, row, col].sigmoid() * bilinear(features[i], y, x)
        output[i, :, row, col] += conv.weight[:, :, tap // 3, tap % 3] @ sample
    return output


def bilinear(image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    sample = image.new_zeros(len(image))
    top, left = math.floor(y.detach()), math.floor(x.detach())
    for row in (top, top + 1):
        for col in (left, left + 1):
            if 0 <= row < image.shape[1] and 0 <= col < image.shape[2]:
                sample = sample + image[:, row, col] * (1 - (y - row).abs()) * (1 - (x - col).abs())
    return sample


def deformable(stride: int = 1, spread: float = 2.0, channels: tuple[int, int] = (3, 4)) -> DeformableConv2d:
    conv = DeformableConv2d(*channels, stride=stride)
    nn.init.normal_(conv.weight)
    nn.init.normal_(conv.conv_offset.weight, std=spread / 5)
    assert conv.conv_offset.bias is not None
    nn.init.normal_(conv.conv_offset.bias, std=spread)
    return conv


@settings(max_examples=15)
@given(
    stride=st.sampled_from([1, 2]),
    height=st.integers(1, 5),
    width=st.integers(1, 6),
    spread=st.sampled_from([0.0, 0.5, 4.0]),
    seed=st.integers(0, 2**20),
)
def test_deformable_convolution_equals_the_slow_loop(
    stride: int, height: int, width: int, spread: float, seed: int
) -> None:
    torch.manual_seed(seed)
    conv = deformable(stride, spread)
    features = torch.randn(2, 3, height, width)
    with torch.no_grad():
        torch.testing.assert_close(conv(features), deformable_reference(conv, features), atol=2e-5, rtol=1e-5)


def test_deformable_gradients_equal_those_of_the_slow_loop() -> None:
    conv = deformable()
    features = torch.randn(1, 3, 4, 5, requires_grad=True)
    inputs = (features, conv.weight, conv.conv_offset.weight, conv.conv_offset.bias)
    upstream = torch.randn(1, 4, 4, 5)
    fast = torch.autograd.grad((conv(features) * upstream).sum(), inputs)
    slow = torch.autograd.grad((deformable_reference(conv, features) * upstream).sum(), inputs)
    for ours, expected in zip(fast, slow, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_without_offsets_and_with_open_masks_it_is_a_plain_convolution() -> None:
    conv = deformable(stride=2, spread=0.0)
    with torch.no_grad():
        conv.conv_offset.bias[18:] = 100.0
        features = torch.randn(2, 3, 7, 9)
        torch.testing.assert_close(conv(features), functional.conv2d(features, conv.weight, stride=2, padding=1))


def test_sampling_positions_stay_exact_under_autocast() -> None:
    conv = deformable(spread=0.0, channels=(1, 1))
    with torch.no_grad():
        conv.conv_offset.bias[:18] = 0.25
        conv.conv_offset.bias[18:] = 100.0
        ramp = torch.arange(200.0).expand(1, 1, 6, 200)
        with torch.autocast("cpu", torch.bfloat16):
            taps = conv.sample_taps(ramp)
    assert taps.dtype == torch.float32
    torch.testing.assert_close(taps[0, 0, 7, 4:-4:3], ramp[0, 0, 2, 1:-1] + 0.25)


def test_a_nan_pixel_gives_nan_and_no_index_error() -> None:
    conv = deformable()
    features = torch.zeros(1, 3, 4, 4)
    features[0, 0, 1, 1] = float("nan")
    with torch.no_grad():
        assert conv(features).isnan().any()
