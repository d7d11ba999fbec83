"""One-to-one assignment of queries to annotated objects (Carion et al., DETR, 2020; costs as in Deformable DETR)."""

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from detectors.config import LossConfig
from detectors.targets import BoxTargets

_MATCHED_CODES = 8
"""Velocity takes no part in the matching."""

_LOG_EPS = 1e-12


def match_cost(
    logits: Float32[Tensor, "layer query class"],
    boxes: Float32[Tensor, "layer query 10"],
    targets: BoxTargets,
    config: LossConfig,
) -> Float32[Tensor, "layer query object"]:
    """Price of giving an object to a query: focal cost of its class plus L1 of box codes without velocity."""
    p = logits.sigmoid()[..., targets.labels]
    positive = -(p + _LOG_EPS).log() * config.focal_alpha * (1 - p) ** config.focal_gamma
    negative = -(1 - p + _LOG_EPS).log() * (1 - config.focal_alpha) * p**config.focal_gamma
    distance = torch.cdist(boxes[..., :_MATCHED_CODES], targets.codes[:, :_MATCHED_CODES], p=1)
    return config.class_weight * (positive - negative) + config.box_weight * distance


@torch.no_grad()
def match(
    logits: Float32[Tensor, "layer query class"],
    boxes: Float32[Tensor, "layer query 10"],
    targets: BoxTargets,
    config: LossConfig,
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """For every decoder layer of one sample, the cheapest pairs (query indices, object indices).

    Each object gets a query of its own, as far as there are queries. Predictions must be finite.
    """
    costs: NDArray[np.float32] = match_cost(logits, boxes, targets, config).cpu().numpy()
    pairs = [linear_sum_assignment(cost) for cost in costs]
    return [(queries.astype(np.int64), objects.astype(np.int64)) for queries, objects in pairs]
