"""The feed-forward network of encoder and decoder layers, residual connection included."""

from jaxtyping import Float
from torch import Tensor, nn


class FeedForward(nn.Module):
    """Linear, ReLU, Linear, added to the input. The nesting of ``layers`` is that of the published names."""

    def __init__(self, channels: int, hidden: int, dropout: float) -> None:
        super().__init__()
        widen, narrow = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        nn.init.xavier_uniform_(widen.weight)
        nn.init.xavier_uniform_(narrow.weight)
        self.layers = nn.Sequential(
            nn.Sequential(widen, nn.ReLU(inplace=True), nn.Dropout(dropout)), narrow, nn.Dropout(dropout)
        )

    def forward(self, x: Float[Tensor, "batch token channel"]) -> Float[Tensor, "batch token channel"]:
        """``x`` plus the network's output."""
        out: Tensor = x + self.layers(x)
        return out
