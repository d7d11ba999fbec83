"""No distillation: the student alone. The first control row of every study, and how a teacher is trained."""

from torch import Tensor

from train.distillers.base import Distiller, GroundTruth, StudentOutputs
from train.targets import TeacherTargets


class NoDistiller(Distiller):
    """Reads nothing, adds nothing."""

    def losses(self, student: StudentOutputs, teacher: TeacherTargets, targets: GroundTruth) -> dict[str, Tensor]:  # noqa: ARG002
        """No terms."""
        return {}
