"""Annotations as the losses want them: in range, encoded, on the detector's device."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from detectors.box_code import encode_boxes
from schemas.bev_grid import BevGrid
from schemas.boxes import Boxes
from schemas.errors import DataError


@dataclass(frozen=True, eq=False)
class BoxTargets:
    """One frame's annotated objects.

    Attributes:
        codes: box codes (``detectors/box_code.py``).
        labels: class of each.
    """

    codes: Float32[Tensor, "object 10"]
    labels: Int64[Tensor, " object"]


def in_range(boxes: Boxes, grid: BevGrid) -> Boxes:
    """The published filter: centres strictly inside the map's x-y extent; height does not matter."""
    x_min, y_min, _, x_max, y_max, _ = grid.extent_m
    x, y, _ = boxes.center_m.T
    return boxes.select((x > x_min) & (x < x_max) & (y > y_min) & (y < y_max))


def targets_of(annotations: Sequence[Boxes], grid: BevGrid, device: torch.device) -> list[BoxTargets]:
    """Filter and encode a batch of annotations.

    Raises:
        DataError: an annotation in range is not finite, or a size is not positive: it has no box code.
    """
    targets = []
    for sample, boxes in enumerate(annotations):
        kept = in_range(boxes, grid)
        _check(kept, sample)
        codes, labels = torch.from_numpy(encode_boxes(kept)), torch.from_numpy(kept.labels)
        targets.append(BoxTargets(codes.to(device, non_blocking=True), labels.to(device, non_blocking=True)))
    return targets


def _check(boxes: Boxes, sample: int) -> None:
    numbers = np.column_stack([boxes.center_m, boxes.size_wlh_m, boxes.yaw_rad, boxes.velocity_mps])
    bad = ~np.isfinite(numbers).all(axis=1) | (boxes.size_wlh_m <= 0).any(axis=1)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"batch sample {sample}: annotation {first} is no box: centre {boxes.center_m[first].tolist()} m, size"
            f" {boxes.size_wlh_m[first].tolist()} m, yaw {boxes.yaw_rad[first]} rad, velocity"
            f" {boxes.velocity_mps[first].tolist()} m/s. Expected finite numbers and positive sizes;"
            " mend sample_annotation.json or drop the annotation."
        )
