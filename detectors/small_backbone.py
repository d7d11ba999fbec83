"""A small residual network for camera images of a few hundred pixels, quick to train from scratch on a CPU."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from detectors.config import SmallBackboneConfig

NORM_GROUPS = 8


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = _norm(norm, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = _norm(norm, channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != channels:
            shortcut = nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, _norm(norm, channels))

    def forward(self, features: Float[Tensor, "n _ _ _"]) -> Float[Tensor, "n _ _ _"]:
        """One residual block."""
        inner = functional.relu(self.norm1(self.conv1(features)), inplace=True)
        inner = self.norm2(self.conv2(inner))
        shortcut = features if self.downsample is None else self.downsample(features)
        return functional.relu(inner + shortcut, inplace=True)


class SmallBackbone(nn.Module):
    """Stem of stride 2 and three stages; returns the maps of strides 8 and 16."""

    def __init__(self, config: SmallBackboneConfig) -> None:
        super().__init__()
        stem, *stages = config.channels
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem, 3, stride=2, padding=1, bias=False), _norm(config.norm, stem), nn.ReLU(inplace=True)
        )
        self.layer1 = _stage(stem, stages[0], config.blocks[0], config.norm)
        self.layer2 = _stage(stages[0], stages[1], config.blocks[1], config.norm)
        self.layer3 = _stage(stages[1], stages[2], config.blocks[2], config.norm)
        self._initialise()

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> tuple[Float[Tensor, "n _ _ _"], Float[Tensor, "n _ _ _"]]:
        """Feature maps at 1/8 and 1/16 of the image's size."""
        stride_8 = self.layer2(self.layer1(self.stem(images)))
        return stride_8, self.layer3(stride_8)

    def _initialise(self) -> None:
        """Kaiming-normal convolutions; every residual branch starts at zero, so the first steps train a shallow net."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, BasicBlock):
                assert isinstance(module.norm2.weight, Tensor)
                nn.init.zeros_(module.norm2.weight)


def _stage(in_channels: int, channels: int, blocks: int, norm: str) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, 2, norm)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1, norm) for _ in range(blocks - 1)))


def _norm(kind: str, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.GroupNorm(NORM_GROUPS, channels)
