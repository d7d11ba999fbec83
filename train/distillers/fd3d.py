"""FD3D: find the objects by queries, rebuild the teacher's features there, and compare what the queries look at.

    L = generation_weight · Σ K · mean over channel of ( G( (1 − Z) ⊙ R(S) ) − T )²  /  Σ K
      + refinement_weight · 1 / (layers · |Q⁺|) · Σ over layer, query in Q⁺ of s · mean over channel of ( O_S − O_T )²
      + branch_weight     · detection loss of the query branch, with ``query_source="learned"``

    S, T   BEV maps, T (batch, channel, rows, cols); R restores S to T's size (``train/adapters.py``)
    K      soft areas of the instances (``train/instance_areas.py``), (batch, 1, rows, cols)
    Z      hides a cell, all its channels, with chance ``mask_ratio`` where K > ``min_score``; drawn anew every step
    G      3×3 convolution, ReLU, 3×3 convolution (``generator.py``)
    s      a query's largest class probability;  Q⁺  the queries that count
    O      what a query reads from a map, (layer, batch, query, channel)

Source: FD3D (Zeng et al., "Distilling Focal Knowledge from Imperfect Expert for 3D Object Detection", CVPR 2023).
Reconstructed: the abstract names the three steps; the released code has R, the heatmap baseline (``fd3d-heatmap``) and,
unused, the query branch, which ``train/query_branch.py`` reproduces; its authors state that the distiller itself is not
released. The two focal losses are ours in that spirit. Decided here:

* ``query_source="teacher"``: the teacher's own queries, from the cache; nothing to train but R and G. Q⁺ are the
  ``instances`` best above ``min_score``, areas their boxes. The decoder's sampling offsets and weights are not cached,
  so O is read at the reference points as each decoder layer refined them, and on a ring of eight points
  ``ring_cells`` of the teacher's cells around each, all alike, without projection.
* ``query_source="learned"``: the published way, a query branch trained beside the student on the cached BEV with a
  detection loss of its own. O are the readings of its deformable attention in every layer, before the output
  projection. Q⁺ are the queries with s > ``min_score`` and those that an annotated object is assigned to. O_T, places,
  weights and projection are without gradient in the refinement, so it moves the student and R alone. The branch is
  dropped with the teacher.
* Areas of the learned branch are the annotated boxes (s = 1) for its first ``ground_truth_steps`` steps, when it knows
  nothing (the first epoch, in a reconstruction that counts epochs), and later in frames where no query exceeds
  ``min_score``.
* ``query_source="none"`` is the control: areas are the annotated boxes (s = 1), nothing is refined.
* ``mask_ratio`` is of the instances' cells; outside nothing is hidden and nothing is compared.
* Teacher features and queries come from clean, full-size images; the release feeds its teacher the student's augmented
  ones, enlarged.
* The release's term on camera features (channel-wise, ``train/spatial_softmax.py``) is left out: caching a teacher's
  image pyramid costs five times its BEV.
"""

from math import pi
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float32
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from detectors.detection_loss import mean_over_ranks
from detectors.outputs import QueryOutputs
from detectors.targets import targets_of
from train.adapters import Restore
from train.distillers.base import DistillationSetting, Distiller, GroundTruth, StudentOutputs, teacher_bev
from train.distillers.generator import bev_generator, kept
from train.instance_areas import best_queries, instance_area
from train.query_branch import QueryBranch, QueryBranchOptions
from train.targets import TeacherTargets

RING_POINTS = 8


class FD3DOptions(BaseModel):
    """Options of ``fd3d``.

    Attributes:
        query_source: whose queries find the objects; with ``none`` they are the annotations'.
        generation_weight, refinement_weight, branch_weight: of the three terms.
        mask_ratio: chance of an instance's cell to be hidden.
        min_score: queries not surer than this see no object; cells where K is not higher belong to none.
        instances: most queries per frame that areas are drawn for, and that are compared with ``teacher``.
        min_sigma_cells: smallest standard deviation of an area.
        ring_cells: radius of the ring around a reference point, with ``teacher``; 0 reads the point alone.
        ground_truth_steps: batches for which areas are the annotations', with ``learned``.
        branch: size of the query branch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    query_source: Literal["teacher", "learned", "none"] = "teacher"
    generation_weight: float = Field(default=1.0, ge=0)
    refinement_weight: float = Field(default=1.0, ge=0)
    branch_weight: float = Field(default=1.0, ge=0)
    mask_ratio: float = Field(default=0.5, ge=0, lt=1)
    min_score: float = Field(default=0.1, ge=0, lt=1)
    instances: int = Field(default=100, ge=1)
    min_sigma_cells: float = Field(default=1.0, gt=0)
    ring_cells: float = Field(default=1.0, ge=0)
    ground_truth_steps: int = Field(default=500, ge=0)
    branch: QueryBranchOptions = QueryBranchOptions()


def build_fd3d(options: FD3DOptions, setting: DistillationSetting) -> Distiller:
    """The distiller of ``options.query_source``.

    Raises:
        CacheError: the cache lacks what it reads.
        RecipeError: the query branch's heads do not divide the teacher's channels.
    """
    if options.query_source == "none":
        return AnnotatedFD3D(options, setting)
    return TeacherQueryFD3D(options, setting) if options.query_source == "teacher" else BranchFD3D(options, setting)


class _FD3D(Distiller):
    """What both have: the restored map, and masked generation within areas."""

    def __init__(self, options: FD3DOptions, setting: DistillationSetting) -> None:
        super().__init__()
        self.options, self.grid = options, setting.teacher.grid
        self.channels = setting.teacher_feature("bev").shape[-1]
        self.restore = Restore(
            student=(setting.student_channels, *setting.student_grid.shape), teacher=(self.channels, *self.grid.shape)
        )
        self.generator = bev_generator(self.channels)

    def areas(
        self, codes: list[Float32[Tensor, "_ 10"]], scores: list[Float32[Tensor, " _"]]
    ) -> Float[Tensor, "batch 1 rows cols"]:
        """K of every sample."""
        return torch.stack(
            [
                instance_area(boxes, sure, self.grid, self.options.min_sigma_cells)[None]
                for boxes, sure in zip(codes, scores, strict=True)
            ]
        )

    @torch.no_grad()
    def annotated_areas(self, targets: GroundTruth, device: torch.device) -> Float[Tensor, "batch 1 rows cols"]:
        """K of every sample, of its annotated boxes."""
        given = [target.codes for target in targets_of(targets.boxes, self.grid, device)]
        return self.areas(given, [codes.new_ones(len(codes)) for codes in given])

    def generation(
        self,
        restored: Float[Tensor, "batch channel rows cols"],
        target: Float[Tensor, "batch channel rows cols"],
        areas: Float[Tensor, "batch 1 rows cols"],
    ) -> Float[Tensor, ""]:
        """The generation term, weighted."""
        hidden = (areas > self.options.min_score) * (1 - kept(tuple(areas.shape), self.options.mask_ratio, areas))
        error = (self.generator((1 - hidden) * restored) - target).square().mean(1, keepdim=True)
        mean: Tensor = (areas * error).sum() / mean_over_ranks(areas.sum()).clamp(min=1e-6)
        return self.options.generation_weight * mean


class TeacherQueryFD3D(_FD3D):
    """Objects and places from the teacher's cached queries."""

    requires = ("bev", "query_boxes", "query_logits", "query_positions")

    def losses(self, student: StudentOutputs, teacher: TeacherTargets, targets: GroundTruth) -> dict[str, Tensor]:  # noqa: ARG002
        """``generation`` and ``refinement``."""
        restored, target = self.restore(student.bev), teacher_bev(teacher)
        index, scores = best_queries(teacher.current("query_logits"), self.options.instances, self.options.min_score)
        boxes = teacher.current("query_boxes").gather(1, index[..., None].expand(-1, -1, 10))
        areas = self.areas(list(boxes), list(scores))
        references = teacher.current("query_positions")[:, 1:, :, :2]
        chosen = references.gather(2, index[:, None, :, None].expand(-1, references.shape[1], -1, 2))
        # Reading is linear: the difference of two readings is one reading of the difference.
        places = (2 * self._around(chosen) - 1).flatten(1, 2)
        read = functional.grid_sample(restored - target, places, mode="bilinear", align_corners=False)
        error = read.square().mean(1).reshape(*chosen.shape[:3], -1).mean(dim=(1, 3))
        refinement = (scores * error).sum() / mean_over_ranks((scores > 0).sum().float()).clamp(min=1)
        return {
            "generation": self.generation(restored, target, areas),
            "refinement": self.options.refinement_weight * refinement,
        }

    def _around(
        self, references: Float32[Tensor, "batch layer instance 2"]
    ) -> Float32[Tensor, "batch layer instance point 2"]:
        """The reference points and the ring around each, in [0, 1] of the map."""
        if self.options.ring_cells == 0:
            return references[..., None, :]
        angles = torch.arange(RING_POINTS, device=references.device) * (2 * pi / RING_POINTS)
        ring = functional.pad(torch.stack([angles.cos(), angles.sin()], dim=-1), (0, 0, 1, 0))
        size = references.new_tensor([self.grid.cols, self.grid.rows])
        return references[..., None, :] + self.options.ring_cells * ring / size


class BranchFD3D(_FD3D):
    """Objects and places from queries that learn beside the student."""

    requires = ("bev",)
    own_terms = ("branch",)

    def __init__(self, options: FD3DOptions, setting: DistillationSetting) -> None:
        super().__init__(options, setting)
        self.branch = QueryBranch(options.branch, setting.teacher, self.channels)
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def losses(self, student: StudentOutputs, teacher: TeacherTargets, targets: GroundTruth) -> dict[str, Tensor]:
        """``generation``, ``refinement`` and ``branch``."""
        restored, target = self.restore(student.bev), teacher_bev(teacher)
        queries, pairs = self.branch(target, restored)
        scores = queries.logits[-1].detach().sigmoid().amax(-1)
        counts = (scores > self.options.min_score) | self.branch.matched(queries, targets.boxes)
        error = (pairs.student - pairs.teacher).square().mean(-1).mean(0)
        refinement = (counts * scores * error).sum() / mean_over_ranks(counts.sum().float()).clamp(min=1)
        terms = {
            "generation": self.generation(restored, target, self._areas(queries, targets)),
            "refinement": self.options.refinement_weight * refinement,
            "branch": self.options.branch_weight * self.branch.loss(queries, targets.boxes),
        }
        if self.training:
            self.steps += 1
        return terms

    @torch.no_grad()
    def _areas(self, queries: QueryOutputs, targets: GroundTruth) -> Float[Tensor, "batch 1 rows cols"]:
        """The queries' areas, or the annotations' where those know nothing yet."""
        index, scores = best_queries(queries.logits[-1], self.options.instances, self.options.min_score)
        boxes = queries.boxes[-1].gather(1, index[..., None].expand(-1, -1, 10))
        found = self.areas(list(boxes), list(scores))
        annotated = self.annotated_areas(targets, boxes.device)
        blind: Bool[Tensor, " batch"] = (scores[:, 0] == 0) | (self.steps < self.options.ground_truth_steps)
        return torch.where(blind[:, None, None, None], annotated, found)


class AnnotatedFD3D(_FD3D):
    """The annotated objects, without any query."""

    requires = ("bev",)

    def losses(self, student: StudentOutputs, teacher: TeacherTargets, targets: GroundTruth) -> dict[str, Tensor]:
        """``generation``."""
        restored, target = self.restore(student.bev), teacher_bev(teacher)
        return {"generation": self.generation(restored, target, self.annotated_areas(targets, target.device))}
