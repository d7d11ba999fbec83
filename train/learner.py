"""The student and the distillers that train it, as one module: batch in, named loss terms out.

One module, so that a distributed wrapper sees every parameter in one forward call, and one state dict holds all that
learns.
"""

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from detectors.bevformer import BEVFormer
from detectors.outputs import TemporalState
from train.batches import TrainingBatch
from train.distiller_catalogue import DistillerSet
from train.distillers.base import GroundTruth, StudentOutputs
from train.history import carried_over, encode_history
from train.options import Precision

DETECTION = "detection"


class Learner(nn.Module):
    """A detector being trained.

    Args:
        detector: the student.
        distillers: what it learns from the cache, possibly nothing.
        precision: of the detector's arithmetic.
    """

    def __init__(self, detector: BEVFormer, distillers: DistillerSet, precision: Precision) -> None:
        super().__init__()
        self.detector = detector
        self.distillers = distillers
        self.precision = precision

    def forward(self, batch: TrainingBatch, left: TemporalState | None) -> tuple[dict[str, Tensor], TemporalState]:
        """Weighted loss terms, to be summed (``detection/...``, ``<distiller>/...``), and the memory this batch leaves.

        Args:
            batch: one step's input.
            left: the memory that the batch before has left, for samples that go on from it.

        Raises:
            UserError: the detector's predictions are not finite.
        """
        device = batch.current.images.device
        # Two autocast blocks, not one: a block keeps the weights it has cast, and in older torch releases those cast
        # without gradient for the history are used again for the supervised frames, which then do not train.
        with autocast(device, self.precision):
            history = encode_history(self.detector, batch.history, len(batch.boxes))
            previous = carried_over(left, batch) if history is None else history
        with autocast(device, self.precision):
            features, memory = self.detector.features(batch.current, previous)
            own = self.detector.losses(features, batch.boxes)
        terms = {f"{DETECTION}/{name}": value.float() for name, value in own.items()}
        if batch.teacher is not None:
            student = StudentOutputs(features, previous, batch.previous_is_adjacent)
            learnt = self.distillers.losses(student, batch.teacher, GroundTruth(batch.boxes, batch.past_boxes))
            terms |= self.distillers.weighting(learnt, detection=torch.stack(list(terms.values())).sum())
        return terms, memory


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """Arithmetic in the given precision within the block."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "float32")
