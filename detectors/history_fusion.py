"""The previous BEV laid beneath the present one and convolved with it: how things that moved are told from the ground.

Temporal self-attention chooses where to look from one cell's content, before it knows what is there; with thousands of
frames instead of hundreds of thousands it does not learn to find the same object half a second ago, and so no velocity.
Convolutions over both maps see what moved by how many cells at once. BEVFormer v2 (Yang et al., CVPR 2023) replaces the
attention over time by residual blocks over the warped maps of several frames; here a block follows the attention, and
what is remembered is its result, so the past reaches further back than one frame.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from detectors.config import BEVFormerConfig
from detectors.ego_motion import BevHistory, read_beneath

_NORM_GROUPS = 8


class HistoryFusion(nn.Module):
    """A residual block over (present, previous); at first it changes nothing.

    It reaches four cells: at the demo's 1.6 m and half a second, 13 m/s.
    """

    def __init__(self, config: BEVFormerConfig) -> None:
        super().__init__()
        channels = config.embed_dims
        self.grid = config.grid
        self.compare = _conv_block(2 * channels, channels, dilation=1)
        self.reach = _conv_block(channels, channels, dilation=2)
        self.change = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        # Zero gains, not zero weights: those of a convolution grow so fast under Adam that the map itself is lost.
        self.gain = nn.GroupNorm(_NORM_GROUPS, channels)
        nn.init.zeros_(self.gain.weight)
        self.norm = nn.LayerNorm(channels)

    def forward(
        self, bev: Float[Tensor, "batch cell channel"], history: BevHistory | None
    ) -> Float[Tensor, "batch cell channel"]:
        """The present map, knowing of the previous one; without history it is convolved with zeros."""
        present = bev.transpose(1, 2).reshape(len(bev), -1, *self.grid.shape)
        beneath = torch.zeros_like(present) if history is None else read_beneath(history, self.grid).to(present)
        change = self.gain(self.change(self.reach(self.compare(torch.cat([present, beneath], dim=1)))))
        fused: Tensor = self.norm(bev + change.flatten(2).transpose(1, 2))
        return fused


def _conv_block(channels_in: int, channels_out: int, dilation: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=dilation, dilation=dilation, bias=False),
        nn.GroupNorm(_NORM_GROUPS, channels_out),
        nn.ReLU(inplace=True),
    )
