"""Pearson distillation: the student's BEV channels shall rise and fall where the teacher's do, at whatever scale.

    L = weight · mean over batch, channel, cell of ½ · ( s − t )²  =  weight · mean over channel of ( 1 − r )

s and t are the student's and the teacher's maps with every channel standardised over (batch, rows, cols), biased
variance; r is Pearson's correlation of the two channels, so L lies between 0 and 2 and does not change when a channel
is scaled by a positive factor or shifted.

Source: PKD (Cao et al., NeurIPS 2022, "General Distillation Framework for Object Detectors via Pearson Correlation
Coefficient"). Its code divides by the unbiased deviation plus 1e-6, which is the same within one part in the number of
cells. Decided here: as published there is no adapter where the channel counts agree (``adapter="auto"``), though two
networks trained apart have no reason to number their channels alike; a 1×1 convolution without bias (which
standardising would undo) stands where they differ, or everywhere with ``"always"``. Grids are compared at the
student's cells (the teacher averaged by area) or at the teacher's (the student interpolated). A channel that is
constant over the batch has no correlation: it is taken as zero and passes no gradient. Processes that train together
correlate each over its own batch, and the average of their losses is what is learnt from.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from train.adapters import resize_bev
from train.distillers.base import DistillationSetting, Distiller, GroundTruth, StudentOutputs, teacher_bev
from train.targets import TeacherTargets

SMALLEST_VARIANCE = 1e-10
"""Below this a channel counts as constant: it is rounding noise of features of size one."""


class PKDOptions(BaseModel):
    """Options of ``pkd``: its weight, whose grid the maps are compared on, and when channels are projected first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(default=1.0, ge=0)
    grid: Literal["student", "teacher"] = "student"
    adapter: Literal["auto", "always"] = "auto"


class PKDDistiller(Distiller):
    """One minus the correlation of BEV channels."""

    requires = ("bev",)

    def __init__(self, options: PKDOptions, setting: DistillationSetting) -> None:
        super().__init__()
        self.weight = options.weight
        self.shape = setting.student_grid.shape if options.grid == "student" else setting.teacher.grid.shape
        channels = setting.student_channels, setting.teacher_feature("bev").shape[-1]
        projects = options.adapter == "always" or channels[0] != channels[1]
        self.adapter = nn.Conv2d(*channels, kernel_size=1, bias=False) if projects else nn.Identity()

    def losses(self, student: StudentOutputs, teacher: TeacherTargets, targets: GroundTruth) -> dict[str, Tensor]:  # noqa: ARG002
        """One term, ``bev``."""
        ours = standardised(resize_bev(self.adapter(student.bev), self.shape))
        theirs = standardised(resize_bev(teacher_bev(teacher), self.shape))
        return {"bev": self.weight * 0.5 * (ours - theirs).square().mean()}


def standardised(bev: Float[Tensor, "batch channel rows cols"]) -> Float[Tensor, "batch channel rows cols"]:
    """Each channel at mean 0 and variance 1 over all else; a constant channel is zero, without gradient."""
    variance, mean = torch.var_mean(bev, dim=(0, 2, 3), correction=0, keepdim=True)
    varies = variance > SMALLEST_VARIANCE
    # The clamp keeps the unused branch's gradient finite, which where() would otherwise turn into NaN.
    return torch.where(varies, (bev - mean) * variance.clamp(min=SMALLEST_VARIANCE).rsqrt(), 0)
