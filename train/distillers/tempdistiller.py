"""TempDistiller: from few frames and half its cells, rebuild what the teacher knows of a long past.

    L = weight · mean over batch, channel, cell of ( G( M ⊙ A(S) ) − target )²
      + relation_weight · mean over cells of | cos(S_t, S_t₋₁) − cos(F_t, F_t₋₁) |

    S        the student's BEV (batch, channel, rows, cols), or its object queries (batch, query, channel)
    A        1×1 convolution (queries: linear layer) to the teacher's channels
    M        hides each cell, all its channels, with chance ``mask_ratio``; drawn anew every step
    G        generator, see ``generator.py``
    target   the teacher's last ``frames`` keyframes fused by ``train/temporal_fusion.py``, without gradient

Source: TempDistiller (Zheng et al., arXiv:2401.01918). Its method section was not at hand, and no code is released:
the abstract says that a long-term target is fused from the teacher by self-attention, that masked student features are
rebuilt towards it by a generator, and that a relation over time is distilled too. The formulas are a reconstruction in
that spirit. Decided here:

* BEV: attention over time only, cell by cell; attention between all cells of all frames is out of reach. Frames are
  resized to the student's grid first (area average, as everywhere), then laid under the supervised frame
  (``train/ego_alignment.py``): less memory than warping at the teacher's size, at the price of its sub-cell detail.
* Cells whose ground an earlier frame did not cover, and frames before the start of the scene, leave the softmax, so
  that at a scene's start, and with ``frames=1``, the target is the teacher's own feature to the last bit.
* Queries: content is compared with content, without ego motion. The frame itself stands for itself instead of attending
  to itself, which gives the same exactness. A student's query learns from the teacher's query nearest in the plane
  (``pairing="nearest"``); ``"index"`` is for a student that inherited the teacher's queries, which are then held.
* All cells are rebuilt, as in MGD, not only the hidden ones (``loss_on``).
* The published relation spans all frames of two networks that see equally many. Ours see different numbers: the pair
  that both always have is the supervised frame and its neighbour. It counts where the student was given exactly that
  neighbour and the earlier map covers the cell; the student's earlier map carries no gradient. Not for queries, of
  which a detector keeps none.
* ``target="temporal_target"`` reads the fused map from the cache, where the teacher stage materialised it from the
  teacher's floats, not ``frames`` maps. Such a target may also hold the frames to come (``future_frames``), which FTKD
  (arXiv:2512.08247) gives its offline teacher: what will be seen of a place, moved to now. A cache that was fused
  otherwise than is asked for here is refused.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from detectors.detection_loss import mean_over_ranks
from detectors.outputs import QueryOutputs
from schemas.errors import CacheError, RecipeError
from schemas.features import FeatureSpec
from schemas.temporal_fusion import TemporalFusion
from train.adapters import ChannelAdapter, resize_bev
from train.distillers.base import DistillationSetting, Distiller, GroundTruth, StudentOutputs, teacher_bev
from train.distillers.generator import MaskedReconstruction, bev_generator, query_generator
from train.ego_alignment import AlignedBev, align_bev, past_from_current
from train.targets import TeacherTargets
from train.temporal_fusion import fuse_bev, fuse_queries


class TempDistillerOptions(BaseModel):
    """Options of ``tempdistiller``.

    Attributes:
        mode: what is rebuilt, BEV cells or object queries.
        target: fused from cached frames in every step, or read from the cache.
        frames: of the teacher that are fused, the supervised one included, those after it not counted.
        future_frames: after the supervised one that are fused as well; only where the cache holds the target.
        weight: of the reconstruction.
        relation_weight: of the relation over time; 0 leaves it out.
        mask_ratio: chance of a cell or query to be hidden.
        loss_on: places that are compared.
        temperature: of the attention (``train/temporal_fusion.py``).
        pairing: which teacher query a student query learns from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["bev", "query"] = "bev"
    target: Literal["cached_frames", "temporal_target"] = "cached_frames"
    frames: int = Field(default=4, ge=1)
    future_frames: int = Field(default=0, ge=0)
    weight: float = Field(default=1.0, ge=0)
    relation_weight: float = Field(default=0.5, ge=0)
    mask_ratio: float = Field(default=0.5, ge=0, lt=1)
    loss_on: Literal["all", "masked"] = "all"
    temperature: float = Field(default=1.0, gt=0)
    pairing: Literal["nearest", "index"] = "nearest"

    @model_validator(mode="after")
    def _check(self) -> "TempDistillerOptions":
        if self.future_frames > 0 and self.target != "temporal_target":
            raise ValueError("only a cached target has seen future_frames: use target temporal_target with them")
        if self.mode == "query" and self.target == "temporal_target":
            raise ValueError("temporal_target is a BEV map: use mode bev with it, or target cached_frames")
        if self.loss_on == "masked" and self.mask_ratio == 0:
            raise ValueError("loss_on masked compares nothing when mask_ratio is 0")
        return self

    @property
    def fusion(self) -> TemporalFusion:
        """What a cached target is to be fused from."""
        return TemporalFusion(
            past_frames=self.frames - 1, future_frames=self.future_frames, temperature=self.temperature
        )


def build_tempdistiller(options: TempDistillerOptions, setting: DistillationSetting) -> Distiller:
    """The distiller of ``options.mode``.

    Raises:
        CacheError: the cache lacks what it reads.
        RecipeError: queries are to be paired by index, and equal numbers do not mean equal queries.
    """
    return BevTempDistiller(options, setting) if options.mode == "bev" else QueryTempDistiller(options, setting)


class BevTempDistiller(Distiller):
    """Masked reconstruction of a BEV map that remembers, and a relation over time."""

    def __init__(self, options: TempDistillerOptions, setting: DistillationSetting) -> None:
        super().__init__()
        self.options, self.grid = options, setting.student_grid
        cached_target = "temporal_target" if options.target == "temporal_target" else "bev"
        relates = options.relation_weight > 0
        self.fused_frames = options.frames if cached_target == "bev" else 1
        self.teacher_frames = max(self.fused_frames, 2 if relates else 1)
        self.requires = tuple(sorted({cached_target, "bev"} if relates else {cached_target}))
        spec = setting.teacher_feature(cached_target)
        _refuse_other_fusion(spec, options)
        channels = spec.shape[-1]
        self.rebuild = MaskedReconstruction(
            ChannelAdapter(setting.student_channels, channels),
            bev_generator(channels),
            options.mask_ratio,
            hidden_only=options.loss_on == "masked",
        )

    def losses(self, student: StudentOutputs, teacher: TeacherTargets, targets: GroundTruth) -> dict[str, Tensor]:  # noqa: ARG002
        """``reconstruction``, and ``relation`` where that has a weight."""
        bev = student.bev
        current = self._at_students_grid(teacher_bev(teacher)) if "bev" in self.requires else None
        earlier = self._earlier(teacher)
        if self.options.target == "temporal_target":
            target = self._at_students_grid(teacher.current("temporal_target").permute(0, 3, 1, 2))
        else:
            assert current is not None
            target = fuse_bev(current, earlier[: self.fused_frames - 1], self.options.temperature)
        error = self.rebuild(bev, target, (len(bev), 1, *self.grid.shape))
        terms = {"reconstruction": self.options.weight * error}
        if self.options.relation_weight > 0:
            assert current is not None
            terms["relation"] = self.options.relation_weight * self._relation(student, teacher, (current, earlier[0]))
        return terms

    def _earlier(self, teacher: TeacherTargets) -> list[AlignedBev]:
        """The frames before the supervised one, nearest first, under its ground; outside where there is no frame."""
        places = past_from_current(teacher.previous_from_current)
        aligned = []
        for frame in range(-2, -self.teacher_frames - 1, -1):
            found = align_bev(self._at_students_grid(teacher_bev(teacher, frame)), places[:, frame], self.grid)
            aligned.append(AlignedBev(found.bev, found.inside & teacher.valid[:, frame, None, None]))
        return aligned

    def _at_students_grid(
        self, bev: Float[Tensor, "batch channel rows cols"]
    ) -> Float[Tensor, "batch channel student_rows student_cols"]:
        return resize_bev(bev, self.grid.shape)

    def _relation(
        self,
        student: StudentOutputs,
        teacher: TeacherTargets,
        cached: tuple[Float[Tensor, "batch channel rows cols"], AlignedBev],
    ) -> Float[Tensor, ""]:
        """How differently the two networks see each cell change since the keyframe before."""
        bev, (current, previous) = student.bev, cached
        # Without memory no cell counts, but the number of those that do is asked for in every process.
        memory = bev.detach() if student.previous is None else student.previous.bev.float().transpose(1, 2)
        remembered = memory.reshape(bev.shape)
        step = past_from_current(teacher.previous_from_current[:, -2:])[:, 0]
        ours = functional.cosine_similarity(bev, align_bev(remembered, step, self.grid).bev, dim=1)
        theirs = functional.cosine_similarity(current, previous.bev, dim=1)
        neighbours = student.previous_is_adjacent & (student.previous is not None)
        counts = (previous.inside & neighbours[:, None, None]).to(ours)
        return (counts * (ours - theirs).abs()).sum() / mean_over_ranks(counts.sum()).clamp(min=1)


def _refuse_other_fusion(spec: FeatureSpec, options: TempDistillerOptions) -> None:
    """Compare what a cached target was fused from with what is asked for; a feature that says nothing is believed.

    Raises:
        CacheError: they differ.
    """
    there, asked = spec.fusion, options.fusion
    if there is None or there == asked:
        return
    ours = "student.training.distillation.tempdistiller"
    wanted = {"frames": there.past_frames + 1, "future_frames": there.future_frames, "temperature": there.temperature}
    take = " ".join(f"--set {ours}.{name}={value}" for name, value in wanted.items() if getattr(options, name) != value)
    make = " ".join(f"--set cache.{spec.name}.{name}={value}" for name, value in asked)
    raise CacheError(
        f"the cached {spec.name} was fused from {there}, and tempdistiller is asked for {asked}. Take what is there: "
        f"{take}; or make a cache of the other: make cache-teacher CACHE=<another folder> ARGS='--arrays ... {make}'"
    )


class QueryTempDistiller(Distiller):
    """Masked reconstruction of object queries that remember."""

    def __init__(self, options: TempDistillerOptions, setting: DistillationSetting) -> None:
        super().__init__()
        self.options = options
        self.requires = ("query_features", "query_positions") if options.pairing == "nearest" else ("query_features",)
        self.teacher_frames = options.frames
        count, channels = setting.teacher_feature("query_features").shape
        self.holds_queries = options.pairing == "index"
        if self.holds_queries and (count != setting.student_queries or not setting.shares_queries):
            raise RecipeError(
                f"tempdistiller compares queries by number: the teacher has {count}, the student "
                f"{setting.student_queries}{'' if setting.shares_queries else ', not inherited or not learned'}. "
                f"Inherit them (--set student.training.distillation.inherit=true, as many queries: --set "
                f"student.detector.decoder.queries={count}, no heatmap_queries), or --set "
                "student.training.distillation.tempdistiller.pairing=nearest"
            )
        self.rebuild = MaskedReconstruction(
            nn.Linear(setting.student_channels, channels),
            query_generator(channels),
            options.mask_ratio,
            hidden_only=options.loss_on == "masked",
        )

    def losses(self, student: StudentOutputs, teacher: TeacherTargets, targets: GroundTruth) -> dict[str, Tensor]:  # noqa: ARG002
        """``reconstruction``."""
        queries = student.features.queries
        frames = teacher.window("query_features")[:, -self.options.frames :]
        target = fuse_queries(frames, teacher.valid[:, -self.options.frames :], self.options.temperature)
        if self.options.pairing == "nearest":
            target = _nearest(queries, teacher.current("query_positions")[:, -1], target)
        features = queries.features[-1].float()
        return {"reconstruction": self.options.weight * self.rebuild(features, target, (*features.shape[:2], 1))}


@torch.no_grad()
def _nearest(
    queries: QueryOutputs,
    teacher_positions: Float[Tensor, "batch teacher_query 3"],
    target: Float[Tensor, "batch teacher_query channel"],
) -> Float[Tensor, "batch query channel"]:
    """For each of the student's queries the target of the teacher's that ends nearest to it, seen from above.

    Positions are fractions of one extent, so the plane is stretched where the extent is not square.
    """
    distances = torch.cdist(queries.positions[-1, ..., :2].float(), teacher_positions[..., :2])
    chosen = distances.argmin(dim=-1)
    return target.gather(1, chosen[..., None].expand(-1, -1, target.shape[-1]))
