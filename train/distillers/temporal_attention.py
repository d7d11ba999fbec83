"""Temporal attention: the student shall look into the past where the teacher looks.

    L = offset_weight · mean over cell, head, source of Σ over points of w_T · | o_S − o_T |₁
      + weight        · mean over cell, head, source of KL( w_T ‖ w_S )

    o   sampling offsets (batch, rows, cols, head, source, point, 2) of the temporal self-attention in the last encoder
        layer, in cells of the student, from the cell's reference point
    w   their attention weights (batch, rows, cols, head, source, point), summing to one over the points

Source: ours. That a teacher's temporal self-attention can be imitated at all rests on both networks being BEVFormers
(Li et al. 2022, equation 5): same attention, same reference points, which follow the ego motion. Decided here:

* Heads and points are compared by number: both networks start from one published pattern, head k looking in direction
  2πk / heads and point i at distance i + 1. So both must have equally many; sources are always two.
* A point counts as much as the teacher looks at it, w_T; where its offset would go otherwise is nobody's business.
* The teacher's offsets are brought to the student's grid as any map is (area average or interpolation), then from its
  cells to the student's: the distance in metres stays. Weights are brought likewise, and made to sum to one again.
* The previous BEV (source 0) is compared only where the student was given the keyframe just before: else one of the two
  looks into its own present, or half a second further back than the other. The student's history lies in the scene, and
  a cache is made over whole scenes (``history_mode: stream``), so the teacher had it too.
"""

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from detectors.detection_loss import mean_over_ranks
from schemas.bev_grid import BevGrid
from schemas.errors import RecipeError
from train.adapters import resize_bev
from train.distillers.base import DistillationSetting, Distiller, GroundTruth, StudentOutputs
from train.targets import TeacherTargets

SMALLEST_WEIGHT = 1e-6
"""Attention weights are not taken for less, so that the logarithm of one that vanished stays finite."""


class TemporalAttentionOptions(BaseModel):
    """Options of ``temporal-attention``.

    Attributes:
        offset_weight: of the distance between sampling points, in cells.
        weight: of the divergence between attention weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    offset_weight: float = Field(default=0.1, ge=0)
    weight: float = Field(default=1.0, ge=0)


class TemporalAttentionDistiller(Distiller):
    """Distance between sampling points and divergence between their weights; no modules of its own."""

    requires = ("temporal_offsets", "temporal_weights")

    def __init__(self, options: TemporalAttentionOptions, setting: DistillationSetting) -> None:
        super().__init__()
        self.options, self.grid = options, setting.student_grid
        _, _, heads, _, points, _ = setting.teacher_feature("temporal_offsets").shape
        if setting.student_temporal != (heads, points):
            raise RecipeError(
                "temporal-attention compares heads and points one by one: the teacher's temporal self-attention has "
                f"{heads} heads of {points} points, the student's {_spelled(setting.student_temporal)}. Give the "
                f"student the teacher's (--set student.detector.encoder.heads={heads} "
                f"--set student.detector.encoder.temporal_points={points}), or leave temporal-attention out"
            )

    def losses(self, student: StudentOutputs, teacher: TeacherTargets, targets: GroundTruth) -> dict[str, Tensor]:  # noqa: ARG002
        """``offsets`` and ``weights``."""
        temporal = student.features.temporal
        weights = resampled(teacher.current("temporal_weights"), self.grid.shape)
        weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=SMALLEST_WEIGHT)
        offsets = offsets_in_cells(teacher.current("temporal_offsets"), teacher.grid, self.grid)
        distance = (weights * (temporal.offsets.float() - offsets).abs().sum(-1)).sum(-1)
        divergence = (torch.xlogy(weights, weights) - weights * _log(temporal.weights.float())).sum(-1)
        counts = torch.ones_like(distance)
        counts[..., 0] = student.previous_is_adjacent[:, None, None, None]
        share = counts / mean_over_ranks(counts.sum())  # never empty: the current source always counts
        return {
            "offsets": self.options.offset_weight * (share * distance).sum(),
            "weights": self.options.weight * (share * divergence).sum(),
        }


def offsets_in_cells(
    offsets: Float[Tensor, "batch rows cols head source point 2"], old: BevGrid, new: BevGrid
) -> Float[Tensor, "batch new_rows new_cols head source point 2"]:
    """Sampling offsets on another grid of the same extent, counted in its cells: the same metres along x and y."""
    ratio = offsets.new_tensor([new.cols / old.cols, new.rows / old.rows])
    return resampled(offsets, new.shape) * ratio


def resampled(
    values: Float[Tensor, "batch rows cols *inner"], shape: tuple[int, int]
) -> Float[Tensor, "batch new_rows new_cols *inner"]:
    """A map whose channels are several trailing dimensions, brought to another grid."""
    batch, *_ = values.shape
    resized = resize_bev(values.flatten(3).permute(0, 3, 1, 2), shape)
    return resized.permute(0, 2, 3, 1).reshape(batch, *shape, *values.shape[3:])


def _log(weights: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return weights.clamp(min=SMALLEST_WEIGHT).log()


def _spelled(temporal: tuple[int, int] | None) -> str:
    return "has none" if temporal is None else f"has {temporal[0]} heads of {temporal[1]}"
