"""A teacher around another one: what both have in common."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pipeline.teacher_stage.network import Inheritable, TeacherNetwork
from schemas.bev_grid import BevGrid
from schemas.features import FeatureSpec
from schemas.frames import CameraInputs
from schemas.preprocessing import Preprocessing


class AroundTeacher:
    """A ``TeacherNetwork`` that is another one in everything; what differs is overridden."""

    def __init__(self, network: TeacherNetwork) -> None:
        self._network = network

    @property
    def preprocessing(self) -> Preprocessing:
        """As the teacher's."""
        return self._network.preprocessing

    @property
    def grid(self) -> BevGrid:
        """As the teacher's."""
        return self._network.grid

    @property
    def class_names(self) -> tuple[str, ...]:
        """As the teacher's."""
        return self._network.class_names

    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        """As the teacher's."""
        return self._network.feature_specs()

    def features(self, inputs: CameraInputs, previous: Any) -> tuple[Mapping[str, Tensor], Any]:
        """As the teacher's; so is the state."""
        return self._network.features(inputs, previous)

    def state_dict(self) -> Mapping[str, Tensor]:
        """The teacher's: its weights are the same."""
        return self._network.state_dict()

    def inheritable(self) -> Mapping[str, Tensor]:
        """What the teacher offers, and nothing where it offers nothing."""
        return self._network.inheritable() if isinstance(self._network, Inheritable) else {}
