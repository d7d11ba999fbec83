"""Every distiller by name, and how several of them train one student together."""

from collections.abc import Callable, Mapping

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from schemas.errors import RecipeError
from train.distillers.base import DistillationSetting, Distiller, GroundTruth, StudentOutputs
from train.distillers.fd3d_heatmap import FD3DHeatmapDistiller, FD3DHeatmapOptions
from train.distillers.feature import FeatureDistiller, FeatureOptions
from train.distillers.none import NoDistiller
from train.targets import TeacherTargets


class DistillationOptions(BaseModel):
    """Which distillers, and what each is set to.

    Attributes:
        names: keys of ``DISTILLERS``; their terms add up, each weighted by its own options.
        feature, fd3d_heatmap: options by distiller, read only where it is named.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: tuple[str, ...] = ("none",)
    feature: FeatureOptions = FeatureOptions()
    fd3d_heatmap: FD3DHeatmapOptions = FD3DHeatmapOptions()


DISTILLERS: Mapping[str, Callable[[DistillationOptions, DistillationSetting], Distiller]] = {
    "none": lambda _options, _setting: NoDistiller(),
    "feature": lambda options, setting: FeatureDistiller(options.feature, setting),
    "fd3d-heatmap": lambda options, setting: FD3DHeatmapDistiller(options.fd3d_heatmap, setting),
}


class DistillerSet(nn.Module):
    """Several distillers as one.

    Attributes:
        requires: features the cache must hold; none when no cache is read.
        teacher_frames: the longest window any of them reads.
    """

    def __init__(self, distillers: Mapping[str, Distiller]) -> None:
        super().__init__()
        self.distillers = nn.ModuleDict(distillers)
        self.requires = tuple(sorted({name for distiller in distillers.values() for name in distiller.requires}))
        self.teacher_frames = max(distiller.teacher_frames for distiller in distillers.values())

    def losses(self, student: StudentOutputs, teacher: TeacherTargets, targets: GroundTruth) -> dict[str, Tensor]:
        """Terms of all distillers, named ``<distiller>/<term>``, computed in float32 whatever the student ran in."""
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
        RecipeError: an unknown name, no cache where one is needed, or BEV maps of different extents.
        CacheError: the cache lacks a feature that a distiller is sized by.
    """
    if not needs_cache(options.names):
        return DistillerSet({"none": NoDistiller()})
    if setting is None:
        raise RecipeError(
            f"--distiller {','.join(options.names)} learns from a teacher cache, and none was given. "
            "Name one with --cache, or train the student alone with --distiller none."
        )
    return DistillerSet({name: DISTILLERS[name](options, setting) for name in options.names})
