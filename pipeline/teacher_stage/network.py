"""What the teacher stage asks of a teacher. Anything with these few members can fill a cache."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from schemas.bev_grid import BevGrid
from schemas.boxes import Boxes
from schemas.features import FeatureSpec
from schemas.frames import CameraInputs
from schemas.preprocessing import Preprocessing

LIVE_BEV = "live_bev"
"""Name under which ``features`` may give, uncached, the BEV map that the teacher itself decodes, where the feature
``bev`` is a reduced one."""


@runtime_checkable
class TeacherNetwork(Protocol):
    """A network with its weights, on its device, in evaluation mode.

    It remembers nothing: what a frame needs of the frames before comes in and goes out as ``features``' state.
    """

    @property
    def preprocessing(self) -> Preprocessing:
        """How the six camera images are to be prepared."""

    @property
    def grid(self) -> BevGrid:
        """The ground that its BEV features cover."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Its classes, in the order of its logits."""

    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        """What ``features`` gives for every frame, and how a cache stores it."""

    def features(self, inputs: CameraInputs, previous: Any) -> tuple[Mapping[str, Tensor], Any]:
        """One keyframe.

        Args:
            inputs: pixels, geometry and tokens; on the host.
            previous: the state that came with the keyframe before; None on a scene's first.

        Returns:
            Floats by feature name, in the shapes of the specs, on any device; and the state for the next keyframe.
        """

    def state_dict(self) -> Mapping[str, Tensor]:
        """Parameters and buffers: their hash tells two teachers apart."""


@runtime_checkable
class DecodesBev(Protocol):
    """A teacher that can decode a BEV map it is given, so that the price of quantisation is told in boxes."""

    def boxes_from_bev(self, bev: Tensor) -> Boxes:
        """Scored detections from BEV features (row, col, channel) in float32, on the teacher's device."""


@runtime_checkable
class Inheritable(Protocol):
    """A teacher with parameters that a student may start from."""

    def inheritable(self) -> Mapping[str, Tensor]:
        """Those parameters by name; stored once beside the arrays."""
