"""Structured distillation: what the teacher fused of views and of time, where it responds, and what its queries found.

    L = spatial_weight  · mean over cell, channel of ( A(S) − T )²
      + temporal_weight · mean over valid cell, channel of ( A'(ΔS) − ΔT )²,         ΔX = X_t − X_t₋₁ laid under frame t
      + response_weight · τ² · KL( softmax over cells (g_T / στ) ‖ softmax over cells (g_S / στ) ),   g = mean |channel|
      + decoder_weight  · Σ over query of [ KL( p_T ‖ p_S ) + box_share · s_T · | box_S − box_T |₁ ] / Σ s_T

    S, T   final BEV maps (batch, channel, rows, cols), the teacher's averaged or interpolated to the student's grid
    A, A'  1×1 convolutions to the teacher's channels; nothing where the student shares decoder and channel count
    σ      standard deviation of g_T over the cells of a frame
    p, s   class probabilities (query, class), and a query's largest
    box    box codes (query, 10), entries weighted as in the published detection loss: velocity 0.2, all else 1

Source: Structured Knowledge Distillation for multi-view 3D detection (Zhang et al., arXiv:2211.08398). Reconstructed
from the abstract, which names three parts: spatial-temporal distillation of fused views and timestamps, response
distillation over the pillars of the BEV, and weight inheriting (``train/inheritance.py``). Its equations could not be
read, no code is released. Decided here:

* Fused views are the final BEV, what every encoder layer ends in. Fused timestamps are the step from the frame before,
  ΔX, so that final maps are all that must be cached. Earlier maps are read at where the ground of each cell was then
  (``train/ego_alignment.py``); a cell counts where the student was given exactly the keyframe before, and that covers
  the cell. The student's earlier map is its memory and carries no gradient. A' has no bias: a difference has none.
* A pillar's response is its cell's channel-mean magnitude, and τ counts in standard deviations of the teacher's over
  the cells of a frame: behind a LayerNorm the magnitudes of all cells are nearly one number, and their softmax as it is
  would be flat (measured on the demo: a term of 0.0006 beside a detection loss of 6). So counted it is of size one,
  but in single probes of 250 steps on the demo the weights 1 and 0.1 held detection back, as did A(S) in place of S
  and τ = 4: hence 0.01. ``response="channel"`` compares every channel of A(S) and T instead, as they are
  (channel-wise distillation, ``train/spatial_softmax.py``).
* Decoder responses are compared query by query only where equal numbers mean equal queries: the student inherited the
  teacher's learned ones (``inherit`` with ``object_queries``), has as many, and they are held while it trains.
  ``decoder="auto"`` leaves the term out elsewhere, as with queries that start from a heatmap's peaks, ``"index"``
  refuses. ``"nearest"`` is for those: each of the teacher's queries teaches the student's query whose box centre is
  nearest, up to ``reach_m`` away, both parts weighted by s_T. Only the last decoder layer is cached, so only that one
  is compared.
* The divergence is the binary cross-entropy to the teacher's probabilities less their entropy: equal gradients, zero
  for a perfect student. Sums are divided by Σ s_T, at least one: the objects that the teacher sees, as the detection
  loss divides by those annotated.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from detectors.config import LossConfig
from detectors.detection_loss import mean_over_ranks
from schemas.errors import RecipeError
from train.adapters import resize_bev
from train.distillers.base import DistillationSetting, Distiller, GroundTruth, StudentOutputs, teacher_bev
from train.ego_alignment import align_bev, past_from_current
from train.spatial_softmax import spatial_divergence
from train.targets import TeacherTargets

SMALLEST_SPREAD = 1e-3
"""A map whose responses vary less is taken to vary by this much: there is nothing in it to find."""


class StructuredKDOptions(BaseModel):
    """Options of ``structured-kd``.

    Attributes:
        spatial_weight, temporal_weight, response_weight, decoder_weight: of the four terms.
        response: compare one response per cell, or every channel.
        temperature: τ of the response; with ``pillar`` in standard deviations of the teacher's.
        decoder: how the teacher's queries find the student's.
        box_share: of boxes beside classes in the decoder's term.
        reach_m: with ``nearest``, centres farther apart than this are no pair.
        adapter: ``auto`` compares channels as they are where the student starts from the teacher's decoder and has as
            many; ``always`` projects there too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    spatial_weight: float = Field(default=1.0, ge=0)
    temporal_weight: float = Field(default=1.0, ge=0)
    response_weight: float = Field(default=0.01, ge=0)
    decoder_weight: float = Field(default=0.5, ge=0)
    response: Literal["pillar", "channel"] = "pillar"
    temperature: float = Field(default=1.0, gt=0)
    decoder: Literal["auto", "index", "nearest", "off"] = "auto"
    box_share: float = Field(default=0.25, ge=0)
    reach_m: float = Field(default=4.0, gt=0)
    adapter: Literal["auto", "always"] = "auto"


class StructuredKDDistiller(Distiller):
    """Spatial, temporal and response terms on the BEV, and responses of the decoder."""

    def __init__(self, options: StructuredKDOptions, setting: DistillationSetting) -> None:
        super().__init__()
        self.options, self.grid = options, setting.student_grid
        self.pairing = _pairing(options, setting)
        self.holds_queries = self.pairing == "index"
        self.teacher_frames = 2 if options.temporal_weight > 0 else 1
        self.requires = ("bev",) if self.pairing == "off" else ("bev", "query_boxes", "query_logits")
        channels = setting.student_channels, setting.teacher_feature("bev").shape[-1]
        as_they_are = options.adapter == "auto" and setting.shares_decoder and channels[0] == channels[1]
        self.adapter = nn.Identity() if as_they_are else nn.Conv2d(*channels, kernel_size=1)
        self.step_adapter: nn.Module | None = None
        if options.temporal_weight > 0:
            self.step_adapter = nn.Identity() if as_they_are else nn.Conv2d(*channels, kernel_size=1, bias=False)
        self.code_weights: Tensor
        self.register_buffer("code_weights", torch.tensor(LossConfig().code_weights), persistent=False)

    def losses(self, student: StudentOutputs, teacher: TeacherTargets, targets: GroundTruth) -> dict[str, Tensor]:  # noqa: ARG002
        """``spatial``, ``temporal``, ``response``, and the decoder's ``class`` and ``box`` where queries pair."""
        options, bev = self.options, student.bev
        target = resize_bev(teacher_bev(teacher), self.grid.shape)
        adapted = self.adapter(bev)
        terms = {"spatial": options.spatial_weight * (adapted - target).square().mean()}
        if self.step_adapter is not None:
            terms["temporal"] = options.temporal_weight * self._step_error(student, teacher, target)
        if options.response == "channel":
            response = spatial_divergence(adapted.flatten(2), target.flatten(2), options.temperature)
        else:
            strength = resize_bev(teacher_bev(teacher).abs().mean(1, keepdim=True), self.grid.shape).flatten(1)
            spread = strength.std(dim=1, correction=0, keepdim=True).clamp(min=SMALLEST_SPREAD)
            found = bev.abs().mean(1).flatten(1)
            response = spatial_divergence(found / spread, strength / spread, options.temperature)
        terms["response"] = options.response_weight * response
        if self.pairing != "off":
            classes, boxes = self._decoder_errors(student, teacher)
            terms["class"] = options.decoder_weight * classes
            terms["box"] = options.decoder_weight * options.box_share * boxes
        return terms

    def _step_error(
        self, student: StudentOutputs, teacher: TeacherTargets, current: Float[Tensor, "batch channel rows cols"]
    ) -> Float[Tensor, ""]:
        """How differently the two networks changed since the keyframe before."""
        assert self.step_adapter is not None
        bev = student.bev
        # Without memory no cell counts; the own map in its place keeps the adapter in the graph, as DDP wants.
        memory = bev.detach() if student.previous is None else _as_map(student.previous.bev, bev)
        motion = past_from_current(teacher.previous_from_current[:, -2:])[:, 0]
        ours = self.step_adapter(bev - align_bev(memory, motion, self.grid).bev)
        before = align_bev(resize_bev(teacher_bev(teacher, -2), self.grid.shape), motion, self.grid)
        neighbours = student.previous_is_adjacent & teacher.valid[:, -2]
        counts = (before.inside & neighbours[:, None, None])[:, None].to(bev)
        error: Tensor = counts * (ours - (current - before.bev)).square()
        return error.sum() / (mean_over_ranks(counts.sum()) * error.shape[1]).clamp(min=1)

    def _decoder_errors(
        self, student: StudentOutputs, teacher: TeacherTargets
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Of classes and of boxes."""
        logits, boxes = student.features.queries.logits[-1].float(), student.features.queries.boxes[-1].float()
        wanted, their_boxes = teacher.current("query_logits"), teacher.current("query_boxes")
        scores = wanted.sigmoid().amax(-1)
        shares = torch.ones_like(scores)
        if self.pairing == "nearest":
            index, near = _nearest(boxes, their_boxes, self.options.reach_m)
            logits, boxes = _at(logits, index), _at(boxes, index)
            shares = scores = scores * near
        objects = mean_over_ranks(scores.sum()).clamp(min=1)
        p = wanted.sigmoid()
        entropy = functional.binary_cross_entropy_with_logits(wanted, p, reduction="none")
        divergence = functional.binary_cross_entropy_with_logits(logits, p, reduction="none") - entropy
        distance = ((boxes - their_boxes).abs() * self.code_weights).sum(-1)
        return (shares[..., None] * divergence).sum() / objects, (scores * distance).sum() / objects


def _pairing(options: StructuredKDOptions, setting: DistillationSetting) -> Literal["index", "nearest", "off"]:
    """How queries are paired with this student.

    Raises:
        RecipeError: by number was asked for, and equal numbers do not mean equal queries.
    """
    if options.decoder in ("nearest", "off"):
        return "nearest" if options.decoder == "nearest" else "off"
    if options.decoder == "auto" and not setting.shares_queries:
        return "off"
    theirs = setting.teacher_feature("query_logits").shape[0]
    if setting.shares_queries and theirs == setting.student_queries:
        return "index"
    if options.decoder == "auto":
        return "off"
    raise RecipeError(
        f"structured-kd compares decoder responses by query number: the teacher has {theirs} queries, the student "
        f"{setting.student_queries}{'' if setting.shares_queries else ', not inherited or not learned'}. Inherit them "
        "(--set student.training.distillation.inherit=true, as many queries, no heatmap_queries), or --set "
        "student.training.distillation.structured_kd.decoder=nearest"
    )


def _as_map(
    memory: Float[Tensor, "batch cell channel"], like: Float[Tensor, "batch channel rows cols"]
) -> Float[Tensor, "batch channel rows cols"]:
    return memory.float().transpose(1, 2).reshape(like.shape)


@torch.no_grad()
def _nearest(
    boxes: Float[Tensor, "batch query 10"], theirs: Float[Tensor, "batch teacher_query 10"], reach_m: float
) -> tuple[Tensor, Bool[Tensor, "batch teacher_query"]]:
    """For each of the teacher's queries the student's whose box centre is nearest from above, and if near enough."""
    distance, index = torch.cdist(theirs[..., :2], boxes[..., :2]).min(dim=-1)
    return index, distance <= reach_m


def _at(values: Float[Tensor, "batch query number"], index: Tensor) -> Float[Tensor, "batch teacher_query number"]:
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
