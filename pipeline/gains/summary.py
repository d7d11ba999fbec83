"""From finished runs to what a table says: which runs count, means over seeds, paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from statistics import fmean, stdev

from pipeline.gains.record import Record
from pipeline.gains.rows import Row
from pipeline.gains.statistics import PairedDifference, holm, paired_difference
from schemas.errors import DataError


@dataclass(frozen=True)
class Metric:
    """How an official number is shown.

    Attributes:
        title: with its unit.
        scale: from the file's unit to the shown one.
        digits: after the point.
        higher_is_better: otherwise lower is.
    """

    title: str
    scale: float
    digits: int
    higher_is_better: bool = False


METRICS: Mapping[str, Metric] = {
    "nds": Metric("NDS", 100.0, 1, higher_is_better=True),
    "map": Metric("mAP", 100.0, 1, higher_is_better=True),
    "mate": Metric("mATE (m)", 1.0, 3),
    "mase": Metric("mASE", 1.0, 3),
    "maoe": Metric("mAOE (rad)", 1.0, 3),
    "mave": Metric("mAVE (m/s)", 1.0, 3),
    "maae": Metric("mAAE", 1.0, 3),
}
TESTED = ("nds", "map", "mate", "mave")
"""Metrics whose differences are tested."""


@dataclass(frozen=True)
class RowRuns:
    """The runs of one row that count, by seed."""

    row: Row
    by_seed: Mapping[int, Record]

    @property
    def complete(self) -> bool:
        """Whether all of its seeds have been run."""
        return len(self.by_seed) >= self.row.seeds

    def mean(self, metric: str) -> float:
        """Over seeds, as shown; NaN without a run."""
        values = self.values(metric)
        return fmean(values) if values else nan

    def sd(self, metric: str) -> float:
        """Over seeds, as shown; NaN with fewer than two runs."""
        values = self.values(metric)
        return stdev(values) if len(values) > 1 else nan

    def values(self, metric: str) -> list[float]:
        """By seed, as shown."""
        return [METRICS[metric].scale * record.value(metric) for _, record in sorted(self.by_seed.items())]

    def differences(self, other: "RowRuns", metric: str) -> dict[int, float]:
        """Ours minus theirs, as shown, for the seeds that both have."""
        scale = METRICS[metric].scale
        return {
            seed: scale * (record.value(metric) - other.by_seed[seed].value(metric))
            for seed, record in sorted(self.by_seed.items())
            if seed in other.by_seed
        }

    def gain(self, other: "RowRuns", metric: str) -> PairedDifference:
        """What the differences to another row say."""
        return paired_difference(list(self.differences(other, metric).values()))


@dataclass(frozen=True)
class Summary:
    """One study.

    Attributes:
        study: its short hash.
        rows: every row of the study, run or not, in its order.
        left_out: in words, runs of the file that do not count, and why.
    """

    study: str
    rows: Mapping[str, RowRuns]
    left_out: tuple[str, ...]

    @property
    def records(self) -> tuple[Record, ...]:
        """All runs that count."""
        return tuple(record for runs in self.rows.values() for record in runs.by_seed.values())

    def group(self, group: str) -> tuple[RowRuns, ...]:
        """The rows of one table."""
        return tuple(runs for runs in self.rows.values() if runs.row.group == group)

    def compared(self, runs: RowRuns) -> RowRuns:
        """The row that this one is compared with."""
        return self.rows[runs.row.against]

    def holm_p(self, metric: str) -> dict[str, float]:
        """Holm-corrected p-values of the headline rows, by name; one not yet testable counts as p = 1."""
        family = [runs for runs in self.group("headline") if runs.row.name != runs.row.against]
        corrected = holm([runs.gain(self.compared(runs), metric).p for runs in family])
        return {runs.row.name: p for runs, p in zip(family, corrected, strict=True)}


def summarise(records: Sequence[Record], rows: Sequence[Row], study: str | None) -> Summary:
    """The runs of one study that are made as its rows now stand.

    Args:
        records: all of a file.
        rows: of the study.
        study: its hash; None for the one with most runs, the later one of two.

    Raises:
        DataError: there is no run.
    """
    if not records:
        raise DataError("No run of the study is finished yet: `make gains` makes them.")
    study = study or max(
        {record.study for record in records},
        key=lambda name: (
            sum(record.study == name for record in records),
            max(record.date for record in records if record.study == name),
        ),
    )
    left_out = []
    others = sum(record.study != study for record in records)
    if others:
        left_out.append(f"{others} runs of other studies (another student, budget, cache, data or program)")
    chosen = {}
    for row in rows:
        ours = [record for record in records if record.study == study and record.row == row.name]
        counting = _as_the_row_stands(row, ours)
        if len(counting) < len(ours):
            left_out.append(f"{len(ours) - len(counting)} runs of `{row.name}` with other settings than it has now")
        chosen[row.name] = RowRuns(row, {record.seed: record for record in counting})
    unknown = {record.row for record in records if record.study == study} - set(chosen)
    left_out += [f"runs of `{name}`, which is no row now" for name in sorted(unknown)]
    return Summary(study, chosen, tuple(left_out))


def _as_the_row_stands(row: Row, records: Sequence[Record]) -> list[Record]:
    """Runs with the row's settings; of several fingerprints that of the latest run."""
    same = [
        record
        for record in records
        if record.overrides == row.overrides and record.distillers == ",".join(row.distillers)
    ]
    latest = max(same, key=lambda record: record.date, default=None)
    return [record for record in same if latest is not None and record.fingerprint == latest.fingerprint]
