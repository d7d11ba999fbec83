"""Bottleneck ResNet with the entry names of the published checkpoints (He et al., arXiv:1512.03385).

The published detectors never train their batch norms: statistics and scales are those of the pre-training. A norm is
therefore a fixed scale and shift per channel, and is folded into the convolution before it: one pass over memory less
per convolution, and nothing of it to keep for the backward pass.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from detectors.config import ResNetConfig
from detectors.deformable_conv import KERNEL, DeformableConv2d

EXPANSION = 4


class FrozenBatchNorm(nn.Module):
    """Batch normalisation by stored statistics that no training changes; entries named as in ``nn.BatchNorm2d``."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long))

    def folded_into(
        self, weight: Float[Tensor, "out in_ k k"]
    ) -> tuple[Float[Tensor, "out in_ k k"], Float[Tensor, " out"]]:
        """Weight and bias of the one convolution that equals a bias-free convolution followed by this norm."""
        scale = self.weight * (self.running_var + self.epsilon).rsqrt()
        return weight * scale[:, None, None, None], self.bias - self.running_mean * scale


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolution around a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int, config: ResNetConfig, *, deformable: bool) -> None:
        super().__init__()
        first_stride, second_stride = (stride, 1) if config.style == "caffe" else (1, stride)
        out_channels = EXPANSION * channels
        self.conv1 = nn.Conv2d(in_channels, channels, 1, stride=first_stride, bias=False)
        self.bn1 = FrozenBatchNorm(channels)
        self.conv2 = (
            DeformableConv2d(channels, channels, stride=second_stride)
            if deformable
            else nn.Conv2d(channels, channels, KERNEL, stride=second_stride, padding=1, bias=False)
        )
        self.bn2 = FrozenBatchNorm(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = FrozenBatchNorm(out_channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, FrozenBatchNorm(out_channels))

    def forward(self, features: Float[Tensor, "n _ _ _"]) -> Float[Tensor, "n _ _ _"]:
        """One residual block."""
        inner = functional.relu(_convolve(features, self.conv1, self.bn1), inplace=True)
        inner = functional.relu(_convolve(inner, self.conv2, self.bn2), inplace=True)
        inner = _convolve(inner, self.conv3, self.bn3)
        shortcut = features if self.downsample is None else _convolve(features, *self.downsample)
        return functional.relu(inner.add_(shortcut), inplace=True)


class ResNet(nn.Module):
    """ResNet-50 or -101; returns the maps of the chosen stages, finest first."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = FrozenBatchNorm(64)
        self.layer1 = _stage(config, 1)
        self.layer2 = _stage(config, 2)
        self.layer3 = _stage(config, 3)
        self.layer4 = _stage(config, 4)
        self._initialise()
        self._freeze()

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> tuple[Float[Tensor, "n _ _ _"], ...]:
        """Feature maps of ``out_stages``; stage s has stride 2**(s + 1) and 128·2**s channels."""
        features = functional.relu(_convolve(images, self.conv1, self.bn1), inplace=True)
        features = functional.max_pool2d(features, 3, stride=2, padding=1)
        outputs = []
        stages = (self.layer1, self.layer2, self.layer3, self.layer4)
        for number, stage in enumerate(stages[: self.config.out_stages[-1]], start=1):
            for block in stage:
                features = self._run(block, features)
            if number in self.config.out_stages:
                outputs.append(features)
        return tuple(outputs)

    def _run(self, block: nn.Module, features: Tensor) -> Tensor:
        if self.config.checkpoint_activations and features.requires_grad:
            recomputed: Tensor = checkpoint(block, features, use_reentrant=False)
            return recomputed
        output: Tensor = block(features)
        return output

    def _initialise(self) -> None:
        """Kaiming-normal convolutions as published, offsets zero, and residual branches that do not pile up.

        The published training starts from pre-trained statistics. Without them a frozen norm normalises nothing, and
        33 blocks at full scale would multiply the signal 90,000 times; scaled by 1/√blocks they at most treble it.
        """
        residual_scale = 1 / math.sqrt(sum(self.config.blocks))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | DeformableConv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in self.modules():
            if isinstance(module, DeformableConv2d):
                nn.init.zeros_(module.conv_offset.weight)
                assert module.conv_offset.bias is not None
                nn.init.zeros_(module.conv_offset.bias)
            elif isinstance(module, Bottleneck):
                nn.init.constant_(module.bn3.weight, residual_scale)

    def _freeze(self) -> None:
        """Take the stem and the frozen stages out of training."""
        if self.config.frozen_stages < 0:
            return
        frozen = [self.conv1, self.layer1, self.layer2, self.layer3, self.layer4][: 1 + self.config.frozen_stages]
        for module in frozen:
            module.requires_grad_(requires_grad=False)


def _stage(config: ResNetConfig, number: int) -> nn.Sequential:
    channels = 64 * 2 ** (number - 1)
    in_channels = 64 if number == 1 else 2 * channels
    deformable = number in config.deformable_stages
    blocks = []
    for index in range(config.blocks[number - 1]):
        stride = 2 if index == 0 and number > 1 else 1
        blocks.append(Bottleneck(in_channels, channels, stride, config, deformable=deformable))
        in_channels = EXPANSION * channels
    return nn.Sequential(*blocks)


def _convolve(features: Tensor, conv: nn.Module, norm: nn.Module) -> Tensor:
    assert isinstance(norm, FrozenBatchNorm)
    if isinstance(conv, DeformableConv2d):
        weight, bias = norm.folded_into(conv.weight)
        return functional.conv2d(conv.sample_taps(features), weight, bias, stride=KERNEL)
    assert isinstance(conv, nn.Conv2d)
    weight, bias = norm.folded_into(conv.weight)
    return functional.conv2d(features, weight, bias, conv.stride, conv.padding)
