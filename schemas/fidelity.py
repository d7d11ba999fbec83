"""How far a cache's numbers are from the floats they were made of, as measured on a few frames."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

Count = Field(ge=0)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FeatureFidelity(_Frozen):
    """One feature, cached against live.

    A channel here is one index of the spec's ``scale_dims``, or of its last dimension where it has none.

    Attributes:
        name: of the feature.
        centred_error: norm of (cached − live) over the norm of (live − its channel's mean). The plain relative error
            would flatter: channel means of a layer norm's output are several times its spread. None where every channel
            is constant.
        cosine: of cached and live values, both less the live channel's mean; None as above.
        largest_error: greatest |cached − live|, in the feature's unit.
        largest_error_std: the same in standard deviations of its channel; constant channels are left out.
    """

    name: str
    centred_error: FiniteFloat | None
    cosine: FiniteFloat | None
    largest_error: FiniteFloat
    largest_error_std: FiniteFloat


class BoxFidelity(_Frozen):
    """What the teacher's decoder sees in the cached BEV against what it sees in the live one.

    Two boxes match when each is the other's nearest of the same class, within a distance. A box without a match has
    moved, changed its class, or dropped out of the best that the decoder lists.

    Attributes:
        chosen: ``score``: the live boxes above ``threshold`` were looked at; ``best``: no box was above it, so the best
            ``best`` of each frame were.
        threshold: score from which a box counts.
        best: how many of each frame's boxes count when none reaches the threshold.
        within_m: greatest distance of a match.
        boxes: live boxes looked at.
        unmatched: those without a match.
        unmatched_best_score: the best live score among those; None when there is none.
        score_change_mean, score_change_max: of the matched, absolute; None without a match.
        center_change_mean_m, center_change_max_m: likewise, in metres.
    """

    chosen: Literal["score", "best"]
    threshold: FiniteFloat
    best: int = Count
    within_m: FiniteFloat
    boxes: int = Count
    unmatched: int = Count
    unmatched_best_score: FiniteFloat | None
    score_change_mean: FiniteFloat | None
    score_change_max: FiniteFloat | None
    center_change_mean_m: FiniteFloat | None
    center_change_max_m: FiniteFloat | None


class Fidelity(_Frozen):
    """Everything that was measured.

    Attributes:
        frames: on how many frames.
        features: in the manifest's order.
        boxes: None where the teacher cannot decode a BEV map, or none is cached.
    """

    frames: int = Field(ge=1)
    features: tuple[FeatureFidelity, ...]
    boxes: BoxFidelity | None = None
