"""UniDistill: nine features of every object, how they relate to each other, and what a head makes of the map.

    L = λ₁ · feature_weight  · mean over boxes of ( mean over points, channels of | A(S)(P) − T(P) | )
      + λ₂ · relation_weight · mean over boxes of ( mean over pairs of points of | Φ_S − Φ_T | )
      + λ₃ · response_weight · Σ g · | c_S − c_T | / Σ g

    P   nine crucial points of an annotated box (``train/crucial_points.py``)
    S   student's BEV (batch, channel, rows, cols); T the teacher's, on a grid of its own
    Φ   (9, 9) cosines between the features at the nine points, x / (‖x‖ + 1e-4)
    c   chance of an object's centre in a cell, the largest over the classes (batch, rows, cols) at the student's cells
    g   Gaussians at the annotated boxes (``train/heatmap.py``), sized by an overlap of 0.7
    λ   published for a pair of modalities (``PUBLISHED_WEIGHTS``); the options' weights, 1, multiply them

Every mean's and sum's divisor has 1e-4 added and is averaged over the ranks of a distributed run, as released.

Source: read in the released code of UniDistill (Zhou et al., CVPR 2023; megvii-research/CVPR2023-UniDistill), whose
numbers ``tests/test_train_distiller_unidistill_golden.py`` reproduces. Decided here:

* The release exchanges x and y where it reads the maps, so it compares at places mirrored at the diagonal. We do not;
  ``legacy_swap`` does. Points outside the map do not count, nor boxes that are all outside; in the release they read
  zeros, which the cosines mistake for a likeness (``legacy_swap`` again). A frame without a box adds nothing, where the
  release counts one box that is not there.
* There is no BEV backbone behind a BEVFormer's BEV, so one map is what the paper calls the low and the high level.
* The release has no adapter A; the paper has one per level where the teacher is the weaker network.
  ``adapter="auto"``: a 1×1 convolution for the features where channel counts differ; the relation needs none.
  ``"always"``: one each for features and relation. It is applied to what was read at the points, not to the whole map:
  both are linear, and it is a hundredth of the work.
* A BEVFormer has no dense head. The teacher's c is its cached detections, drawn at the student's cells
  (``train/detection_heatmap.py``). The student's is a 1×1 convolution that only this term trains and that is dropped
  with the teacher; with ``heatmap="own"`` it is the heatmap that the student predicts, if it does: the head that
  drives, as published, but that head answers to the annotations already. The release compares the head's box maps too;
  there are none here.
* The release softens the teacher's class maps by a temperature of 2, dense logits that lie far apart. Scores of
  detections are modest already and their tail of hundreds would be raised to a floor, so ``temperature`` is 1.
* Of the teacher's map only the nine points are read. ``source="object_features"`` takes them from a cache that holds
  nothing else of it, a few percent of its bytes: read by the teacher stage from the unrounded map, at the same boxes.
* ``min_radius_cells`` is 0 in the release, at cells of 0.6 m. A BEVFormer's are up to 2 m; 1 keeps g from being one
  cell per object. The published λ are for camera, LiDAR and fused networks; a camera teacher of a camera student has
  none, and takes those of the fused teacher.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from detectors.detection_loss import mean_over_ranks
from schemas.errors import CacheError, RecipeError
from train.crucial_points import CrucialPoints, crucial_points
from train.detection_heatmap import detection_heatmap
from train.distillers.base import DistillationSetting, Distiller, GroundTruth, StudentOutputs, teacher_bev
from train.heatmap import object_heatmap
from train.targets import TeacherTargets

Modalities = Literal["fusion-to-lidar", "fusion-to-camera", "camera-to-lidar", "lidar-to-camera"]

PUBLISHED_WEIGHTS: Mapping[Modalities, tuple[float, float, float]] = {
    "fusion-to-lidar": (10.0, 1.0, 10.0),
    "fusion-to-camera": (10.0, 5.0, 10.0),
    "camera-to-lidar": (10.0, 5.0, 1.0),
    "lidar-to-camera": (100.0, 40.0, 10.0),
}
"""λ₁, λ₂, λ₃ by teacher and student."""

EPSILON = 1e-4
MIN_OVERLAP = 0.7
PRIOR_LOGIT = -2.19
"""A chance of a tenth: where heatmap heads start (CornerNet)."""


class UniDistillOptions(BaseModel):
    """Options of ``unidistill``.

    Attributes:
        path: from which teacher to which student; names the published weights.
        feature_weight, relation_weight, response_weight: multiply them; 0 leaves a term out, with all it reads.
        source: where the teacher's features come from, its map or what was read at the boxes when the cache was made.
        adapter: whether the student's channels are projected, for features and relation.
        legacy_swap: read the maps where the release reads them.
        heatmap: what answers for the student, an extra head or its own heatmap where it has one.
        classes: compare the largest chance of any class, or each class's.
        temperature: divides the teacher's class logits.
        min_radius_cells: of the smallest Gaussian, of detections and annotations.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Modalities = "fusion-to-camera"
    feature_weight: float = Field(default=1.0, ge=0)
    relation_weight: float = Field(default=1.0, ge=0)
    response_weight: float = Field(default=1.0, ge=0)
    source: Literal["bev", "object_features"] = "bev"
    adapter: Literal["auto", "always", "never"] = "auto"
    legacy_swap: bool = False
    heatmap: Literal["own", "extra"] = "extra"
    classes: Literal["any", "each"] = "any"
    temperature: float = Field(default=1.0, gt=0)
    min_radius_cells: int = Field(default=1, ge=0)

    @model_validator(mode="after")
    def _check(self) -> "UniDistillOptions":
        if not self.weights:
            raise ValueError("feature_weight, relation_weight and response_weight are all 0: give one a weight")
        if self.legacy_swap and self.source == "object_features":
            raise ValueError("object_features were read where the boxes are: use source bev with legacy_swap")
        return self

    @property
    def weights(self) -> dict[str, float]:
        """Weight of every term that is not left out."""
        own = {"feature": self.feature_weight, "relation": self.relation_weight, "response": self.response_weight}
        published = PUBLISHED_WEIGHTS[self.path]
        return {term: scale * weight for (term, weight), scale in zip(own.items(), published, strict=True) if weight}


class UniDistiller(Distiller):
    """Features at nine points of every object, their relations, and the response of a head."""

    def __init__(self, options: UniDistillOptions, setting: DistillationSetting) -> None:
        super().__init__()
        self.options, self.grid = options, setting.student_grid
        by_points = {"feature", "relation"} & set(options.weights)
        responds = "response" in options.weights
        self.requires = ((options.source,) if by_points else ()) + (("query_boxes", "query_logits") if responds else ())
        self.adapters = nn.ModuleDict({term: _adapter(term, options, setting) for term in sorted(by_points)})
        self.head: nn.Conv2d | None = None
        if responds and not (options.heatmap == "own" and setting.student_heatmap):
            self.head = nn.Conv2d(setting.student_channels, setting.teacher_feature("query_logits").shape[-1], 1)
            assert self.head.bias is not None
            nn.init.constant_(self.head.bias, PRIOR_LOGIT)

    def losses(self, student: StudentOutputs, teacher: TeacherTargets, targets: GroundTruth) -> dict[str, Tensor]:
        """``feature``, ``relation`` and ``response``, those that have a weight."""
        errors: dict[str, Tensor] = {}
        if self.adapters:
            errors = self._at_points(student, teacher, targets)
        if "response" in self.options.weights:
            errors["response"] = self._response(student, teacher, targets)
        return {term: self.options.weights[term] * error for term, error in errors.items()}

    def _at_points(self, student: StudentOutputs, teacher: TeacherTargets, targets: GroundTruth) -> dict[str, Tensor]:
        bev = student.bev
        points = crucial_points(targets.boxes, self.grid, legacy_swap=self.options.legacy_swap).to(bev.device)
        if self.options.source == "bev":
            theirs = points.read(teacher_bev(teacher))
        else:
            theirs = _at_boxes(teacher.current("object_features"), points)
        compare = {"feature": feature_error, "relation": relation_error}
        return {
            term: compare[term](adapter(points.read(bev)), theirs, points.counts)
            for term, adapter in self.adapters.items()
        }

    def _response(self, student: StudentOutputs, teacher: TeacherTargets, targets: GroundTruth) -> Tensor:
        options = self.options
        heatmap = student.features.heatmap if self.head is None else self.head(student.bev)
        assert heatmap is not None, "the setting promised a student with a heatmap"
        logits, codes = teacher.current("query_logits"), teacher.current("query_boxes")
        theirs = detection_heatmap(logits, codes, self.grid, options.temperature, options.min_radius_cells)
        ours = heatmap.float().sigmoid()
        if options.classes == "any":
            ours, theirs = ours.amax(dim=1, keepdim=True), theirs.amax(dim=1, keepdim=True)
        masks = [object_heatmap(boxes, self.grid, MIN_OVERLAP, options.min_radius_cells) for boxes in targets.boxes]
        return response_error(ours, theirs, torch.from_numpy(np.stack(masks)).to(ours))


def _at_boxes(
    stored: Float32[Tensor, "batch row 9 channel"], points: CrucialPoints
) -> Float32[Tensor, "batch box 9 channel"]:
    """What was stored for the boxes of each sample.

    Raises:
        CacheError: a sample has more boxes than the cache has rows.
    """
    boxes = points.counts.shape[1]
    if boxes > stored.shape[1]:
        raise CacheError(
            f"a frame has {boxes} annotated objects on the map, but the cache holds object_features of "
            f"{stored.shape[1]}: it was made from other annotations. Make it again: make cache-teacher"
        )
    return stored[:, :boxes]


def feature_error(
    ours: Float32[Tensor, "batch box point channel"],
    theirs: Float32[Tensor, "batch box point channel"],
    counts: Bool[Tensor, "batch box point"],
) -> Float32[Tensor, ""]:
    """L1 distance of features, per channel, point and box."""
    return mean_over_boxes((ours - theirs).abs().mean(dim=-1), counts)


def relation_error(
    ours: Float32[Tensor, "batch box point channel"],
    theirs: Float32[Tensor, "batch box point other_channel"],
    counts: Bool[Tensor, "batch box point"],
) -> Float32[Tensor, ""]:
    """L1 distance of the cosines between a box's points, per pair of points and box; a point pairs with itself too."""
    pairs = counts[..., :, None] & counts[..., None, :]
    difference = (_cosines(ours) - _cosines(theirs)).abs()
    return mean_over_boxes(difference.flatten(-2), pairs.flatten(-2))


def mean_over_boxes(
    errors: Float32[Tensor, "batch box place"], counts: Bool[Tensor, "batch box place"]
) -> Float32[Tensor, ""]:
    """Every box that has a place counts alike, whatever the number of its places."""
    per_box = (errors * counts).sum(dim=-1) / counts.sum(dim=-1).clamp(min=1)
    boxes = mean_over_ranks(counts.any(dim=-1).sum().float())
    return per_box.sum() / (boxes + EPSILON)


def response_error(
    ours: Float32[Tensor, "batch map rows cols"],
    theirs: Float32[Tensor, "batch map rows cols"],
    mask: Float32[Tensor, "batch rows cols"],
) -> Float32[Tensor, ""]:
    """L1 distance of maps, their mean in each cell weighted by the mask."""
    total = mean_over_ranks(mask.sum())
    return (mask * (ours - theirs).abs().mean(dim=1)).sum() / (total + EPSILON)


def _cosines(features: Float32[Tensor, "*box point channel"]) -> Float32[Tensor, "*box point point"]:
    unit = features / (features.norm(dim=-1, keepdim=True) + EPSILON)
    return torch.matmul(unit, unit.transpose(-1, -2))


def _adapter(term: str, options: UniDistillOptions, setting: DistillationSetting) -> nn.Module:
    """What stands before the student's side of a term.

    Raises:
        CacheError: the cache does not hold the source.
        RecipeError: features of unequal channels are to be compared as they are.
    """
    ours, theirs = setting.student_channels, setting.teacher_feature(options.source).shape[-1]
    differ = term == "feature" and ours != theirs
    if differ and options.adapter == "never":
        raise RecipeError(
            f"unidistill compares features channel by channel, but the student has {ours} and the teacher {theirs}, "
            "and adapter is never. Let it project them (--set student.training.distillation.unidistill.adapter=auto), "
            "or leave the term out (--set student.training.distillation.unidistill.feature_weight=0)"
        )
    return nn.Linear(ours, theirs) if differ or options.adapter == "always" else nn.Identity()
