"""What a few paired seeds say: mean difference, its t-interval, a paired t-test, and Holm's correction."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, nan, sqrt

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class PairedDifference:
    """Ours minus theirs over the seeds that both have.

    Attributes:
        pairs: how many seeds.
        mean: of the differences; NaN without a pair.
        sd: their standard deviation (n - 1); NaN with fewer than two pairs.
        low, high: the 95 % t-interval of the mean; infinite with fewer than two pairs.
        p: of the two-sided paired t-test that the mean is zero; 1 with fewer than two pairs.
    """

    pairs: int
    mean: float
    sd: float
    low: float
    high: float
    p: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def paired_difference(differences: Sequence[float]) -> PairedDifference:
    """Student's t for paired samples; differences that are all equal have an interval of no width."""
    values = np.asarray(differences, dtype=np.float64)
    count = len(values)
    if count < 2:
        return PairedDifference(count, float(values[0]) if count else nan, nan, -inf, inf, 1.0)
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * sd / sqrt(count)
    if sd == 0:
        return PairedDifference(count, mean, sd, mean, mean, 0.0 if mean else 1.0)
    p = 2 * float(stats.t.sf(abs(mean) / (sd / sqrt(count)), count - 1))
    return PairedDifference(count, mean, sd, mean - half, mean + half, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for testing them all (Holm, 1979: step-down Bonferroni), in the order given."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
