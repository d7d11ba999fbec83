"""TempDistiller's long-term target: a teacher's frames fused by attention that has nothing to learn.

A target with parameters of its own would get gradients from the loss it defines, and could make it zero by becoming
trivial; so queries, keys and values are the cached features themselves.
"""

from collections.abc import Sequence
from math import sqrt

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from schemas.bev_grid import BevGrid
from train.ego_alignment import AlignedBev, align_bev, window_from_frame


@torch.no_grad()
def fuse_bev(
    current: Float[Tensor, "batch channel rows cols"], others: Sequence[AlignedBev], temperature: float = 1.0
) -> Float[Tensor, "batch channel rows cols"]:
    """Attention over time, each cell for itself.

        a_τ(p) = softmax over τ of ⟨F_t(p), F_τ(p)⟩ / (temperature · √C),     target(p) = Σ_τ a_τ(p) · F_τ(p)

    τ runs over the current frame t and those other frames that saw cell p. Where none did, the target is the current
    feature, to the last bit.

    Args:
        current: F_t.
        others: the other F_τ, brought to the current frame.
        temperature: below 1 prefers the most similar frame, above 1 averages more evenly.
    """
    scale = 1 / (temperature * sqrt(current.shape[1]))
    logits = [(current * current).sum(1) * scale]
    values = [current]
    for frame in others:
        similarity = (current * frame.bev).sum(1) * scale
        logits.append(torch.where(frame.inside, similarity, -torch.inf))
        values.append(torch.where(frame.inside[:, None], frame.bev, 0))
    shares = torch.stack(logits).softmax(dim=0)
    target = torch.zeros_like(current)
    for share, value in zip(shares, values, strict=True):
        target += share[:, None] * value
    return target


@torch.no_grad()
def fuse_window(
    maps: Sequence[Float[Tensor, "batch channel rows cols"]],
    previous_from_current: Float64[Tensor, "batch frame 4 4"],
    frame: int,
    grid: BevGrid,
    temperature: float = 1.0,
) -> Float[Tensor, "batch channel rows cols"]:
    """``fuse_bev`` of one frame of a window with the others, earlier and later, brought to its ground.

    Args:
        maps: BEV features of consecutive keyframes of a scene, oldest first.
        previous_from_current: for each of them, LiDAR points of the keyframe before it from points of its own.
        frame: the frame that the target is of, 0 the oldest.
        grid: cells of the maps.
        temperature: as for ``fuse_bev``.
    """
    places = window_from_frame(previous_from_current, frame)
    nearest_first = [*range(frame - 1, -1, -1), *range(frame + 1, len(maps))]
    others = [align_bev(maps[other], places[:, other], grid) for other in nearest_first]
    return fuse_bev(maps[frame], others, temperature)


@torch.no_grad()
def fuse_queries(
    frames: Float[Tensor, "batch frame query channel"], valid: Bool[Tensor, "batch frame"], temperature: float = 1.0
) -> Float[Tensor, "batch query channel"]:
    """Attention between the object queries of the last frame and those of each earlier one, averaged over the frames.

        U_τ = softmax( F_t F_τᵀ / (temperature · √C) ) F_τ     for τ before t,     U_t = F_t
        target = mean of U_τ over the frames of the scene that are there

    Args:
        frames: oldest first; the last one is t.
        valid: False before the start of a scene.
        temperature: of the softmax over the queries of one frame.
    """
    current = frames[:, -1]
    scale = 1 / (temperature * sqrt(current.shape[-1]))
    total = current.clone()
    for frame in range(frames.shape[1] - 1):
        attention = (current @ frames[:, frame].transpose(1, 2) * scale).softmax(dim=-1)
        total += torch.where(valid[:, frame, None, None], attention @ frames[:, frame], 0)
    return total / valid.sum(dim=1)[:, None, None]
