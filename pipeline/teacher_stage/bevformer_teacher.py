"""A BEVFormer as a teacher."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from detectors.bevformer import BEVFormer
from detectors.inputs import batch_of
from detectors.outputs import TemporalState
from schemas.bev_grid import BevGrid
from schemas.boxes import Boxes
from schemas.features import FeatureSpec
from schemas.frames import CameraInputs
from schemas.preprocessing import Preprocessing


class BEVFormerTeacher:
    """Streams one sequence through a detector that is in evaluation mode on its device."""

    def __init__(self, detector: BEVFormer) -> None:
        self._detector = detector

    @property
    def preprocessing(self) -> Preprocessing:
        """As the detector was trained with."""
        return self._detector.config.preprocessing

    @property
    def grid(self) -> BevGrid:
        """Of its BEV queries."""
        return self._detector.config.grid

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of its logits."""
        return self._detector.config.class_names

    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        """BEV, temporal attention and object queries (``detectors/teacher_features.py``)."""
        return self._detector.feature_specs()

    def features(
        self, inputs: CameraInputs, previous: TemporalState | None
    ) -> tuple[Mapping[str, Tensor], TemporalState]:
        """One keyframe, as ``TeacherNetwork`` asks."""
        device = next(self._detector.parameters()).device
        found, state = self._detector.features(batch_of([inputs]).to(device), previous)
        return self._detector.cacheable(found, 0), state

    def boxes_from_bev(self, bev: Float[Tensor, "row col channel"]) -> Boxes:
        """What the decoder sees in a BEV map."""
        (boxes,) = self._detector.boxes_from_bev(bev[None])
        return boxes

    def state_dict(self) -> Mapping[str, Tensor]:
        """Of the detector, under the published names."""
        return self._detector.state_dict()

    def inheritable(self) -> Mapping[str, Tensor]:
        """Queries, position tables, history fusion, decoder and branches, under their published names."""
        return {
            name: tensor
            for name, tensor in self._detector.state_dict().items()
            if name.startswith("pts_bbox_head.") and (".encoder." not in name or ".history_fusion." in name)
        }
