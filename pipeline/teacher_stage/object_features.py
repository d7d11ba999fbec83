"""A teacher seen only where objects are: its BEV at nine points of every annotated box, a few percent of the map.

Distillers that compare nothing else (``unidistill``) need no more. The points are read from the live map, before it is
averaged or rounded. Objects stand in the order of the annotations whose centres lie on the map, which is the order in
which training meets them (boxes of a frame are sorted by token); the rows after the last are zero. The number of rows
is fixed, because the arrays of a store are; in the tier ``archive`` the empty ones take next to nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from detectors.targets import in_range
from pipeline.teacher_stage.around_teacher import AroundTeacher
from pipeline.teacher_stage.network import DecodesBev, TeacherNetwork
from scenes.scene_tables import SceneTables
from schemas.bev_grid import BevGrid
from schemas.boxes import Boxes
from schemas.errors import DataError, RecipeError
from schemas.features import FeatureSpec
from schemas.frames import CameraInputs
from train.crucial_points import POINTS, crucial_points

OBJECT_FEATURES = "object_features"


def with_object_features(network: TeacherNetwork, max_objects: int) -> TeacherNetwork:
    """The teacher with ``object_features`` beside its own; a ``DecodesBev`` exactly when ``network`` is one.

    Raises:
        RecipeError: it has no ``bev`` to read them from.
    """
    found = [spec for spec in network.feature_specs() if spec.name == "bev"]
    if not found or found[0].dims != ("y", "x", "channel"):
        raise RecipeError(
            f"{OBJECT_FEATURES} are read from a teacher's bev (y, x, channel), and this one offers "
            f"{', '.join(spec.name for spec in network.feature_specs())}. Leave them out of --arrays."
        )
    spec = _spec(max_objects, found[0].shape[-1])
    return _DecodingAtObjects(network, network, spec) if isinstance(network, DecodesBev) else _AtObjects(network, spec)


def require_room(tables: SceneTables, scene_names: Sequence[str], grid: BevGrid, max_objects: int) -> None:
    """Look through all annotations, so that a crowded frame is not met after hours.

    Raises:
        RecipeError: a frame has more objects on the map than there are rows.
    """
    frames = (frame for name in scene_names for frame in tables.frames(name) if frame.boxes is not None)
    most, token = max(
        ((len(in_range(frame.boxes, grid)), frame.sample_token) for frame in frames if frame.boxes is not None),
        default=(0, ""),
    )
    if most > max_objects:
        raise RecipeError(
            f"sample {token} has {most} annotated objects on the teacher's map, and {OBJECT_FEATURES} has rows for "
            f"{max_objects}. Give it more: --set cache.max_objects={most}"
        )


class _AtObjects(AroundTeacher):
    """A ``TeacherNetwork`` around another one."""

    def __init__(self, network: TeacherNetwork, spec: FeatureSpec) -> None:
        super().__init__(network)
        self._spec = spec

    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        """The teacher's, and ``object_features``."""
        return (*self._network.feature_specs(), self._spec)

    def features(self, inputs: CameraInputs, previous: Any) -> tuple[Mapping[str, Tensor], Any]:
        """One keyframe, read at its annotations.

        Raises:
            DataError: more annotations than rows.
        """
        found, state = self._network.features(inputs, previous)
        if "bev" not in found:
            return found, state  # the quantiser refuses it
        return dict(found) | {OBJECT_FEATURES: self._at_objects(found["bev"], inputs)}, state

    def _at_objects(
        self, bev: Float[Tensor, "row col channel"], inputs: CameraInputs
    ) -> Float[Tensor, "object point channel"]:
        read = torch.zeros(self._spec.shape, device=bev.device)
        if inputs.frame.boxes is None:
            return read
        boxes = in_range(inputs.frame.boxes, self.grid)
        if len(boxes) > len(read):
            raise DataError(
                f"sample {inputs.frame.sample_token} has {len(boxes)} annotated objects on the teacher's map, and "
                f"{OBJECT_FEATURES} has rows for {len(read)}. Give it more: --set cache.max_objects={len(boxes)}"
            )
        points = crucial_points([boxes], self.grid, legacy_swap=False).to(bev.device)
        with torch.autocast(bev.device.type, enabled=False):
            read[: len(boxes)] = points.read(bev.float().movedim(-1, 0)[None])[0, : len(boxes)]
        return read


class _DecodingAtObjects(_AtObjects):
    """A ``DecodesBev`` around another one."""

    def __init__(self, network: TeacherNetwork, decoder: DecodesBev, spec: FeatureSpec) -> None:
        super().__init__(network, spec)
        self._decoder = decoder

    def boxes_from_bev(self, bev: Float[Tensor, "row col channel"]) -> Boxes:
        """As the teacher's."""
        return self._decoder.boxes_from_bev(bev)


def _spec(max_objects: int, channels: int) -> FeatureSpec:
    return FeatureSpec(
        name=OBJECT_FEATURES,
        dims=("object", "crucial_point", "channel"),
        shape=(max_objects, POINTS, channels),
        encoding="affine",
        scale_dims=("channel",),
        description="bev at the corners, centre and sides of every annotated box on the map, in the annotations' order;"
        " zero after the last box.",
    )
