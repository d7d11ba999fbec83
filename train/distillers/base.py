"""What every distiller offers, and what it is given."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor, nn

from detectors.config import BOX_CODE_LENGTH
from detectors.outputs import DetectorFeatures, TemporalState
from schemas.bev_grid import BevGrid
from schemas.boxes import Boxes
from schemas.errors import CacheError
from schemas.features import FeatureSpec
from schemas.manifest import Manifest
from train.adapters import require_equal_extents
from train.crucial_points import POINTS
from train.targets import TeacherTargets

CACHED_DIMS: Mapping[str, tuple[str, ...]] = {
    "bev": ("y", "x", "channel"),
    "temporal_target": ("y", "x", "channel"),
    "temporal_offsets": ("y", "x", "head", "source", "point", "axis"),
    "temporal_weights": ("y", "x", "head", "source", "point"),
    "query_features": ("query", "channel"),
    "query_positions": ("reference", "query", "xyz"),
    "query_logits": ("query", "class"),
    "query_boxes": ("query", "code"),
    "object_features": ("object", "crucial_point", "channel"),
}
"""Dimensions after (scene, step) that distillers take a cached feature to have."""

LEAST_REFERENCES = 2
"""Query positions: where queries start, then where each decoder layer has moved them."""


@dataclass(frozen=True)
class DistillationSetting:
    """Who learns from whom: what is known before the first step, and what training-only modules are sized by.

    Attributes:
        student_grid: BEV grid of the student.
        student_channels: channels of its BEV cells and object queries.
        teacher: manifest of the cache.
        student_queries: its object queries; 0 for a student without.
        student_temporal: heads, and points per head and source, of its temporal self-attention; None for a student
            without.
        student_heatmap: whether it predicts a class heatmap over its BEV.
        shares_decoder: the student starts from the teacher's decoder, so both read BEV channels in one order.
        shares_queries: it starts from the teacher's learned object queries, so equal numbers mean equal queries.

    Raises:
        RecipeError: the two BEV grids cover different ground.
    """

    student_grid: BevGrid
    student_channels: int
    teacher: Manifest
    student_queries: int = 0
    student_temporal: tuple[int, int] | None = None
    student_heatmap: bool = False
    shares_decoder: bool = False
    shares_queries: bool = False

    def __post_init__(self) -> None:
        require_equal_extents(self.student_grid, self.teacher.grid)

    def teacher_feature(self, name: str) -> FeatureSpec:
        """A feature the cache holds, in the dimensions of ``CACHED_DIMS`` and as large as its grid and classes say.

        Raises:
            CacheError: it does not hold it, or in other dimensions or sizes.
        """
        try:
            spec = self.teacher.feature(name)
        except KeyError:
            held = ",".join(spec.name for spec in self.teacher.features)
            raise CacheError(
                f"the cache has no feature {name!r}, which a distiller needs; it holds {held}. Make one that does, of "
                "a teacher that gives it, with the options of this one: make cache-teacher CACHE=<another folder> "
                f"ARGS='--arrays {held},{name}', or without --arrays for all that its recipe keeps"
            ) from None
        if spec.dims != CACHED_DIMS[name]:
            raise CacheError(
                f"the cached {name} has the dimensions {', '.join(spec.dims)}; distillers read it as "
                f"{', '.join(CACHED_DIMS[name])}. Have the teacher give it so, or leave out the distiller that needs it"
            )
        self._require_sizes(spec)
        return spec

    def _require_sizes(self, spec: FeatureSpec) -> None:
        """A teacher of the user's own may promise anything; a class too many would be learnt as an object."""
        known = {
            "y": self.teacher.grid.rows,
            "x": self.teacher.grid.cols,
            "class": len(self.teacher.class_names),
            "code": BOX_CODE_LENGTH,
            "crucial_point": POINTS,
            "xyz": 3,
            "source": 2,
            "axis": 2,
        }
        sizes = dict(zip(spec.dims, spec.shape, strict=True))
        wrong = [
            f"{size} along {dim}, expected {known[dim]}" for dim, size in sizes.items() if size != known.get(dim, size)
        ]
        if sizes.get("reference", LEAST_REFERENCES) < LEAST_REFERENCES:
            wrong.append(f"{sizes['reference']} along reference, expected where queries start and at least one layer")
        if wrong:
            raise CacheError(
                f"the cached {spec.name} has {'; '.join(wrong)} (its grid is {self.teacher.grid.rows}×"
                f"{self.teacher.grid.cols}, its classes {len(self.teacher.class_names)}). Have the teacher give it so, "
                "or leave out the distiller that needs it"
            )


@dataclass(frozen=True, eq=False)
class StudentOutputs:
    """What the student made of the supervised frames.

    Attributes:
        features: with gradients.
        previous: the memory it was given, without gradients; None when no frame of the batch has history.
        previous_is_adjacent: whether that memory ends at the keyframe just before. Terms that compare two neighbouring
            frames hold only there.
    """

    features: DetectorFeatures
    previous: TemporalState | None
    previous_is_adjacent: Bool[Tensor, " batch"]

    @property
    def bev(self) -> Float[Tensor, "batch channel rows cols"]:
        """BEV features in float32, channels first as convolutions want them."""
        return self.features.bev.float().permute(0, 3, 1, 2)


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Annotations, without gradients or guesses.

    Attributes:
        boxes: of the supervised frames, one set per sample, centres inside the BEV extent.
        past: for each sample those of the earlier frames that the student was given, nearest first, in the LiDAR frame
            of the supervised one and of any range. Empty where no sample has any.
    """

    boxes: tuple[Boxes, ...]
    past: tuple[tuple[Boxes, ...], ...] = ()


class Distiller(nn.Module, ABC):
    """A knowledge distillation loss with the modules it needs while training.

    Attributes:
        requires: features the cache must hold.
        teacher_frames: consecutive keyframes, ending with the supervised one, whose cached features are read.
        holds_queries: object queries are compared one by one, so the student's must keep their places.
        own_terms: terms that train this module alone, so ``weighting`` lets them be. Their gradients never reach the
            student, but count in the norm that all gradients are clipped by.
    """

    requires: tuple[str, ...] = ()
    teacher_frames: int = 1
    holds_queries: bool = False
    own_terms: tuple[str, ...] = ()

    @abstractmethod
    def losses(self, student: StudentOutputs, teacher: TeacherTargets, targets: GroundTruth) -> dict[str, Tensor]:
        """Weighted loss terms by name, scalars in float32. Gradients reach the student and this module only."""


def teacher_bev(teacher: TeacherTargets, frame: int = -1) -> Float[Tensor, "batch channel rows cols"]:
    """Cached BEV features, channels first, of one frame of the window: -1 is the supervised one."""
    return teacher.frame("bev", frame).permute(0, 3, 1, 2)
