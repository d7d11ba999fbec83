"""Every distiller by name, and how several of them train one student together."""

from collections.abc import Callable, Mapping
from typing import Annotated

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict
from torch import Tensor, nn

from schemas.errors import RecipeError
from train.distillers.base import DistillationSetting, Distiller, GroundTruth, StudentOutputs
from train.distillers.fd3d import FD3DOptions, build_fd3d
from train.distillers.fd3d_heatmap import FD3DHeatmapDistiller, FD3DHeatmapOptions
from train.distillers.feature import FeatureDistiller, FeatureOptions
from train.distillers.none import NoDistiller
from train.distillers.pkd import PKDDistiller, PKDOptions
from train.distillers.structured_kd import StructuredKDDistiller, StructuredKDOptions
from train.distillers.tempdistiller import TempDistillerOptions, build_tempdistiller
from train.distillers.temporal_attention import TemporalAttentionDistiller, TemporalAttentionOptions
from train.distillers.unidistill import UniDistiller, UniDistillOptions
from train.inheritance import HEAD_PARTS, PARTS, InheritedPart
from train.loss_weighting import LossWeighting, WeightingOptions
from train.targets import TeacherTargets


def _parts(inherit: object) -> object:
    """True stands for the teacher's head, False for nothing."""
    if isinstance(inherit, str):
        raise ValueError(f"expected true, false or a list of {', '.join(PARTS)}; got {inherit!r}")
    return (HEAD_PARTS if inherit else ()) if isinstance(inherit, bool) else inherit


class DistillationOptions(BaseModel):
    """Which distillers, and what each is set to.

    Attributes:
        names: keys of ``DISTILLERS``; their terms add up.
        weighting: how each counts beside the others and the detection loss.
        inherit: parts of the teacher that the student starts from (``train/inheritance.py``); true takes
            ``HEAD_PARTS``.
        feature, fd3d_heatmap, fd3d, pkd, structured_kd, tempdistiller, temporal_attention, unidistill: options by
            distiller, read only where it is named.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: tuple[str, ...] = ("none",)
    weighting: WeightingOptions = WeightingOptions()
    inherit: Annotated[tuple[InheritedPart, ...], BeforeValidator(_parts)] = ()
    feature: FeatureOptions = FeatureOptions()
    fd3d_heatmap: FD3DHeatmapOptions = FD3DHeatmapOptions()
    fd3d: FD3DOptions = FD3DOptions()
    pkd: PKDOptions = PKDOptions()
    structured_kd: StructuredKDOptions = StructuredKDOptions()
    tempdistiller: TempDistillerOptions = TempDistillerOptions()
    temporal_attention: TemporalAttentionOptions = TemporalAttentionOptions()
    unidistill: UniDistillOptions = UniDistillOptions()

    def that_are_read(self) -> dict[str, object]:
        """The options that a run with these distillers depends on, as plain JSON values."""
        if self.names == ("none",):
            return {"names": list(self.names)}
        read = {"names", "weighting", "inherit", *(name.replace("-", "_") for name in self.names)}
        return self.model_dump(mode="json", include=read)


DISTILLERS: Mapping[str, Callable[[DistillationOptions, DistillationSetting], Distiller]] = {
    "none": lambda _options, _setting: NoDistiller(),
    "feature": lambda options, setting: FeatureDistiller(options.feature, setting),
    "fd3d-heatmap": lambda options, setting: FD3DHeatmapDistiller(options.fd3d_heatmap, setting),
    "fd3d": lambda options, setting: build_fd3d(options.fd3d, setting),
    "pkd": lambda options, setting: PKDDistiller(options.pkd, setting),
    "structured-kd": lambda options, setting: StructuredKDDistiller(options.structured_kd, setting),
    "tempdistiller": lambda options, setting: build_tempdistiller(options.tempdistiller, setting),
    "temporal-attention": lambda options, setting: TemporalAttentionDistiller(options.temporal_attention, setting),
    "unidistill": lambda options, setting: UniDistiller(options.unidistill, setting),
}


class DistillerSet(nn.Module):
    """Several distillers as one.

    Attributes:
        requires: features the cache must hold; none when no cache is read.
        teacher_frames: the longest window any of them reads.
        weighting: how their terms count; applied by the learner, which knows the detection loss.
        holds_queries: whether one of them needs the student's object queries to keep their places.
    """

    def __init__(self, distillers: Mapping[str, Distiller], weighting: WeightingOptions) -> None:
        super().__init__()
        self.distillers = nn.ModuleDict(distillers)
        own_terms = {f"{name}/{term}" for name, distiller in distillers.items() for term in distiller.own_terms}
        self.weighting = LossWeighting(weighting, tuple(distillers), frozenset(own_terms))
        self.holds_queries = any(distiller.holds_queries for distiller in distillers.values())
        self.requires = tuple(sorted({name for distiller in distillers.values() for name in distiller.requires}))
        self.teacher_frames = max(distiller.teacher_frames for distiller in distillers.values())

    def losses(self, student: StudentOutputs, teacher: TeacherTargets, targets: GroundTruth) -> dict[str, Tensor]:
        """Terms of all distillers, named ``<distiller>/<term>``, computed in float32 whatever the student ran in.

        Each is weighted by its distiller's own options, not yet by ``weighting``.
        """
        terms: dict[str, Tensor] = {}
        with torch.autocast(student.features.bev.device.type, enabled=False):
            for name, distiller in self.distillers.items():
                assert isinstance(distiller, Distiller)
                own = distiller.losses(student, teacher, targets)
                terms.update({f"{name}/{term}": value for term, value in own.items()})
        return terms


def needs_cache(names: tuple[str, ...]) -> bool:
    """Whether any of these distillers learns from a teacher.

    Raises:
        RecipeError: a name is unknown, given twice, or none is given.
    """
    unknown = [name for name in names if name not in DISTILLERS]
    if unknown or len(set(names)) != len(names) or not names:
        raise RecipeError(
            f"--distiller takes one or more of {', '.join(DISTILLERS)}, each once, separated by commas; "
            f"got {', '.join(names) or 'nothing'}"
        )
    return any(name != "none" for name in names)


def build_distillers(options: DistillationOptions, setting: DistillationSetting | None) -> DistillerSet:
    """The distillers a run asks for.

    Args:
        options: their names and settings.
        setting: student and teacher; None when there is no cache, which only ``none`` can do without.

    Raises:
        RecipeError: an unknown name, no cache where one is needed, BEV maps of different extents, or a distiller that
            cannot work with this student and this teacher.
        CacheError: the cache lacks a feature that a distiller reads.
    """
    _check_shares(options.weighting.shares)
    if not needs_cache(options.names):
        if options.inherit:
            raise RecipeError(
                f"distillation.inherit={','.join(options.inherit)} takes parameters from a teacher cache, and "
                f"--distiller {','.join(options.names)} reads none. Name a distiller that does (one of weight 0 for "
                "inheriting alone), or --set student.training.distillation.inherit=false"
            )
        return DistillerSet({"none": NoDistiller()}, WeightingOptions())
    if setting is None:
        raise RecipeError(
            f"--distiller {','.join(options.names)} learns from a teacher cache, and none was given. "
            "Name one with --cache, or train the student alone with --distiller none."
        )
    together = DistillerSet({name: DISTILLERS[name](options, setting) for name in options.names}, options.weighting)
    for feature in together.requires:
        setting.teacher_feature(feature)
    return together


def _check_shares(shares: Mapping[str, float]) -> None:
    for name, share in shares.items():
        if name not in DISTILLERS or share <= 0:
            raise RecipeError(
                f"distillation.weighting.shares gives {name!r} the share {share}; expected distillers "
                f"({', '.join(DISTILLERS)}) with shares above 0, e.g. --set "
                'student.training.distillation.weighting.shares={"feature": 0.5}'
            )
