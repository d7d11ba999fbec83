"""Feature pyramid network (Lin et al., arXiv:1612.03144), with the entry names of the published checkpoints."""

from collections import OrderedDict

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from detectors.config import FPNConfig


class FPN(nn.Module):
    """Brings the backbone's maps to one channel count and adds the coarse ones to the fine ones."""

    def __init__(self, config: FPNConfig) -> None:
        super().__init__()
        channels = config.out_channels
        self.lateral_convs = nn.ModuleList([_named_conv(c, channels, 1) for c in config.in_channels])
        outputs = [_named_conv(channels, channels, 3) for _ in config.in_channels]
        extra = [_named_conv(channels, channels, 3, stride=2) for _ in range(config.levels - len(outputs))]
        self.fpn_convs = nn.ModuleList(outputs + extra)

    def forward(self, maps: tuple[Float[Tensor, "n _ _ _"], ...]) -> tuple[Float[Tensor, "n c _ _"], ...]:
        """One map per level, finest first; levels beyond the backbone's are strided from the level before."""
        laterals = [conv(features) for conv, features in zip(self.lateral_convs, maps, strict=True)]
        for finer in range(len(laterals) - 2, -1, -1):
            size = laterals[finer].shape[-2:]
            laterals[finer] = laterals[finer] + functional.interpolate(laterals[finer + 1], size=size, mode="nearest")
        outputs = [conv(lateral) for conv, lateral in zip(self.fpn_convs, laterals, strict=False)]
        for conv in list(self.fpn_convs)[len(laterals) :]:
            outputs.append(conv(outputs[-1]))
        return tuple(outputs)


def _named_conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution whose entries are called ``conv.weight`` and ``conv.bias``, as published."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2)
    nn.init.xavier_uniform_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return nn.Sequential(OrderedDict(conv=conv))
