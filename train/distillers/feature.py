"""Feature regression: the student's BEV, through a 1×1 convolution, towards the teacher's everywhere alike.

    L = weight · mean over batch, channel, cell of ( r(S) − T )²

Source: FitNets (Romero et al., ICLR 2015), which regresses a hidden layer of the teacher and leaves scale and weight
open. Decided here: r is always there, also where channels agree; the mean (not the sum) of squares; the teacher's map
is brought to the student's grid by area average (``grid="student"``), or the student's is interpolated to the
teacher's (``grid="teacher"``, finer targets at the price of a larger map). It weighs road and objects alike, which is
why it is the control row and not a method.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from train.adapters import ChannelAdapter, resize_bev
from train.distillers.base import DistillationSetting, Distiller, GroundTruth, StudentOutputs, teacher_bev
from train.targets import TeacherTargets


class FeatureOptions(BaseModel):
    """Options of ``feature``: its weight, and whose grid the maps are compared on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(default=1.0, ge=0)
    grid: Literal["student", "teacher"] = "student"


class FeatureDistiller(Distiller):
    """Mean squared error between BEV features."""

    requires = ("bev",)

    def __init__(self, options: FeatureOptions, setting: DistillationSetting) -> None:
        super().__init__()
        self.weight = options.weight
        self.shape = setting.student_grid.shape if options.grid == "student" else setting.teacher.grid.shape
        self.regressor = ChannelAdapter(setting.student_channels, setting.teacher_feature("bev").shape[-1])

    def losses(self, student: StudentOutputs, teacher: TeacherTargets, targets: GroundTruth) -> dict[str, Tensor]:  # noqa: ARG002
        """One term, ``bev``."""
        regressed = resize_bev(self.regressor(student.bev), self.shape)
        difference = regressed - resize_bev(teacher_bev(teacher), self.shape)
        return {"bev": self.weight * difference.square().mean()}
