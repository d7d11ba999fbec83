"""The one rule by which several distillers share a student: how much each may say beside the annotations.

``fixed``: every term counts with the weight its distiller's options give it.

``matched``: each distiller's total is brought to a share of the detection loss, by a factor that is found at the start
and then stands:

    factor = share · mean(detection loss) / mean(distiller's total)

Means are exponential, 0.9 old to 0.1 new, over the batches in which the distiller had anything to say; the factor
follows them until ``steps`` such batches are seen and is frozen with the last. From there on a total that shrinks
faster than the detection loss counts for less, as with fixed weights. Within a distiller the options still say how its
terms stand to each other. Terms that train a distiller's own modules alone are neither counted nor scaled. Processes
that train together measure their batches together, and so have one factor.

Losses of published methods are sums or means over different things, so their published weights mean little for other
features; matching magnitudes at a fixed step, then freezing, is the usual remedy, and its one number can be tuned.
Decided here: it is matched from the first batch, not left alone until the fixed step, because an unscaled loss can
spoil a student in fifty steps.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from detectors.detection_loss import mean_over_ranks

REMEMBERED = 0.9
"""Of the running means, per batch."""


class WeightingOptions(BaseModel):
    """How distillers are weighted.

    Attributes:
        rule: see the module's text.
        steps: batches after which the factor of ``matched`` is frozen.
        share: of the detection loss that each distiller's total is matched to.
        shares: other shares, by distiller.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: Literal["fixed", "matched"] = "fixed"
    steps: int = Field(default=50, ge=1)
    share: float = Field(default=0.5, gt=0)
    shares: Mapping[str, float] = Field(default={})

    def share_of(self, distiller: str) -> float:
        """The share of one distiller."""
        return self.shares.get(distiller, self.share)


class LossWeighting(nn.Module):
    """Factors by distiller. What it has seen is part of its state dict, so a resumed run goes on with the same numbers.

    Args:
        options: the rule.
        names: of the distillers.
        own_terms: terms, by ``<distiller>/<term>``, that do not speak to the student.
    """

    def __init__(
        self, options: WeightingOptions, names: tuple[str, ...], own_terms: frozenset[str] = frozenset()
    ) -> None:
        super().__init__()
        self.own_terms = own_terms
        self.rule, self.steps, self.names = options.rule, options.steps, names
        self.shares: Tensor
        self.seen: Tensor
        self.detection: Tensor
        self.totals: Tensor
        shares = torch.tensor([options.share_of(name) for name in names])
        self.register_buffer("shares", shares, persistent=False)
        self.register_buffer("seen", torch.zeros(len(names), dtype=torch.int64))
        self.register_buffer("detection", torch.zeros(len(names)))
        self.register_buffer("totals", torch.zeros(len(names)))

    def forward(self, terms: Mapping[str, Tensor], detection: Tensor) -> dict[str, Tensor]:
        """The terms, weighted; while training, the batch is taken into account first.

        Args:
            terms: by ``<distiller>/<term>``, each weighted by its distiller's own options.
            detection: the sum of the detector's own losses.
        """
        if self.rule == "fixed":
            return dict(terms)
        if self.training:
            self._observe(terms, detection.detach().float())
        factors = dict(zip(self.names, self._factors(), strict=True))
        return {
            name: value if name in self.own_terms else factors[name.partition("/")[0]] * value
            for name, value in terms.items()
        }

    def factors(self) -> dict[str, float]:
        """The factor of each distiller as it stands, for the log; nothing under ``fixed``."""
        return {} if self.rule == "fixed" else dict(zip(self.names, self._factors().tolist(), strict=True))

    def _factors(self) -> Tensor:
        measured = self.shares * self.detection / self.totals.clamp(min=torch.finfo(torch.float32).tiny)
        return torch.where(self.seen > 0, measured, 1)

    @torch.no_grad()
    def _observe(self, terms: Mapping[str, Tensor], detection: Tensor) -> None:
        sums = dict.fromkeys(self.names, detection.new_zeros(()))
        for name, value in terms.items():
            if name in self.own_terms:
                continue
            sums[name.partition("/")[0]] = sums[name.partition("/")[0]] + value.detach()
        seen = mean_over_ranks(torch.stack([detection, *(sums[name] for name in self.names)]))
        detection, totals = seen[0], seen[1:]
        # Kept on the device, without branches: nothing here waits for the numbers.
        counts = (self.seen < self.steps) & (totals > 0) & totals.isfinite() & detection.isfinite()
        for mean, value in ((self.detection, detection.expand_as(totals)), (self.totals, totals)):
            moved = torch.where(self.seen > 0, REMEMBERED * mean + (1 - REMEMBERED) * value, value)
            mean.copy_(torch.where(counts, moved, mean))
        self.seen += counts
