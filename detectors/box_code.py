"""The ten numbers a query predicts for its box, and their way to and from ``schemas.boxes.Boxes``.

0 centre x, 1 centre y (metres), 2 log width, 3 log length, 4 centre z (metres, gravity centre), 5 log height,
6 sin yaw, 7 cos yaw, 8 vx, 9 vy (m/s); LiDAR frame, yaw in the convention of ``schemas/boxes.py``.
"""

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from numpy.typing import NDArray
from torch import Tensor

from schemas.bev_grid import BevGrid
from schemas.boxes import Boxes

CENTER = (0, 1, 4)
LOG_SIZE = (2, 3, 5)
YAW = (6, 7)
VELOCITY = (8, 9)

_LOGIT_EPS = 1e-5


def inverse_sigmoid(probability: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Logit, finite for probabilities of 0 and 1."""
    p = probability.clamp(0, 1)
    return torch.log(p.clamp(min=_LOGIT_EPS) / (1 - p).clamp(min=_LOGIT_EPS))


def refine(
    reference: Float32[Tensor, "batch query 3"], change: Float32[Tensor, "batch query 10"], grid: BevGrid
) -> tuple[Float32[Tensor, "batch query 3"], Float32[Tensor, "batch query 10"]]:
    """Move reference points by a predicted change and complete the box code.

    Args:
        reference: normalised (x, y, z) of the BEV extent.
        change: regression branch output; its centre entries are differences of logits, the others final.
        grid: whose extent centres are normalised by.

    Returns:
        The moved reference points (normalised), and the box codes with the same centres in metres.
    """
    moved = (inverse_sigmoid(reference) + change[..., CENTER]).sigmoid()
    low = moved.new_tensor(grid.extent_m[:3])
    center_m = moved * moved.new_tensor(grid.size_m) + low
    return moved, torch.cat([center_m[..., :2], change[..., 2:4], center_m[..., 2:], change[..., 5:]], dim=-1)


def from_ray_frame(
    code: Float32[Tensor, "batch box 10"], center_m: Float32[Tensor, "*batch box 2"]
) -> Float32[Tensor, "batch box 10"]:
    """Turn yaw and velocity given relative to the ray from the sensor to ``center_m`` into LiDAR axes.

    In the ray's frame x points away from the sensor and y to the left of that. The other entries stay.
    """
    cos, sin = (center_m / center_m.norm(dim=-1, keepdim=True).clamp(min=1e-6)).unbind(-1)
    sin_yaw, cos_yaw, away, left = code[..., 6:].unbind(-1)
    # The convention's yaw runs clockwise, against the ray's angle.
    turned = [sin_yaw * cos - cos_yaw * sin, cos_yaw * cos + sin_yaw * sin, away * cos - left * sin]
    return torch.cat([code[..., :6], torch.stack([*turned, away * sin + left * cos], dim=-1)], dim=-1)


def encode_boxes(boxes: Boxes) -> NDArray[np.float32]:
    """(N, 10) codes. Published name "normalize", though nothing is divided by the range."""
    code = np.empty((len(boxes), 10), dtype=np.float32)
    code[:, CENTER] = boxes.center_m
    code[:, LOG_SIZE] = np.log(boxes.size_wlh_m)
    code[:, YAW] = np.stack([np.sin(boxes.yaw_rad), np.cos(boxes.yaw_rad)], axis=-1)
    code[:, VELOCITY] = boxes.velocity_mps
    return code


def decode_boxes(code: Float[Tensor, "box 10"], scores: Float[Tensor, " box"], labels: Int64[Tensor, " box"]) -> Boxes:
    """Detections on the host, in the order given."""
    rows: NDArray[np.float64] = code.detach().double().cpu().numpy()
    return Boxes(
        center_m=rows[:, CENTER],
        size_wlh_m=np.exp(rows[:, LOG_SIZE]),
        yaw_rad=np.arctan2(rows[:, 6], rows[:, 7]),
        velocity_mps=rows[:, VELOCITY],
        has_velocity=np.ones(len(rows), dtype=np.bool_),
        labels=labels.cpu().numpy(),
        scores=scores.detach().double().cpu().numpy(),
    )
