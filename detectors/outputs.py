"""What a detector gives: features to distil and decode, and the state that carries a sequence to its next frame."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TemporalState:
    """What the next frame of each sequence needs of this one. Nothing else is remembered anywhere.

    Attributes:
        bev: flattened BEV features, detached: gradients do not cross frames in the published training.
        position_m: absolute ego position, global frame.
        yaw_deg: absolute ego yaw in degrees, [0, 360).
        scene_tokens: one per sample.
    """

    bev: Float[Tensor, "batch cell channel"]
    position_m: Float64[Tensor, "batch 3"]
    yaw_deg: Float64[Tensor, " batch"]
    scene_tokens: tuple[str, ...]

    def to(self, device: torch.device) -> "TemporalState":
        """The same state on another device."""
        return TemporalState(
            self.bev.to(device), self.position_m.to(device), self.yaw_deg.to(device), self.scene_tokens
        )


@dataclass(frozen=True, eq=False)
class QueryOutputs:
    """Object queries after every decoder layer, first to last.

    Attributes:
        features: hidden states.
        positions: normalised (x, y, z) in the BEV extent: the initial references, then those each layer refined.
        logits: class logits.
        boxes: box codes (``detectors/box_code.py``) in metres.
    """

    features: Float[Tensor, "layer batch query channel"]
    positions: Float[Tensor, "reference batch query 3"]
    logits: Float[Tensor, "layer batch query class"]
    boxes: Float[Tensor, "layer batch query 10"]


@dataclass(frozen=True, eq=False)
class TemporalAttention:
    """Where the last encoder layer's temporal self-attention looked.

    ``source`` 0 is the previous BEV and 1 the current one; without history both read the current one.

    Attributes:
        offsets: (x, y) in BEV cells from the cell's reference point, which for source 0 follows the ego motion.
        weights: sum to one over the points of each head and source.
    """

    offsets: Float[Tensor, "batch row col head source point 2"]
    weights: Float[Tensor, "batch row col head source point"]


@dataclass(frozen=True, eq=False)
class DetectorFeatures:
    """Everything a frame yields: what a teacher caches, a student is compared with, losses and decoding read.

    Attributes:
        bev: BEV features, axes as drawn in ``schemas/bev_grid.py``.
        queries: object queries after every decoder layer.
        temporal: sampling pattern of the last encoder layer.
        has_history: which samples had a previous BEV.
        heatmap: class logits per cell, where the queries start from a heatmap; else None.
        cell_boxes: box codes per cell, likewise.
    """

    bev: Float[Tensor, "batch row col channel"]
    queries: QueryOutputs
    temporal: TemporalAttention
    has_history: Bool[Tensor, " batch"]
    heatmap: Float[Tensor, "batch class row col"] | None = None
    cell_boxes: Float[Tensor, "batch row col 10"] | None = None
