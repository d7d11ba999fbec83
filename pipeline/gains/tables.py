"""The report's tables, as Markdown."""

from collections.abc import Sequence
from math import isfinite, isnan
from statistics import fmean

from pipeline.gains.record import SCORES, Record
from pipeline.gains.statistics import PairedDifference
from pipeline.gains.summary import METRICS, TESTED, RowRuns, Summary
from pipeline.gains.teacher_scores import TeacherScore

SIGNIFICANT = 0.05


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; its first column is text, the others are numbers."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def seeds_cell(runs: RowRuns) -> str:
    """How many seeds a row has, and of how many if it lacks some."""
    have = len(runs.by_seed)
    return str(have) if runs.complete else f"**{have} of {runs.row.seeds}**"


def scores_table(rows: Sequence[RowRuns]) -> str:
    """Means over seeds, with the standard deviation of NDS."""
    lines = []
    for runs in rows:
        cells = [_number(runs.mean(metric), metric) for metric in SCORES]
        if not isnan(runs.sd("nds")):
            cells[0] += f" ± {_number(runs.sd('nds'), 'nds')}"
        lines.append([f"`{runs.row.name}`", seeds_cell(runs), *cells])
    return markdown(["row", "seeds", *(METRICS[metric].title for metric in SCORES)], lines)


def teacher_table(scores: Sequence[TeacherScore]) -> str:
    """The teacher's own rows."""
    lines = [
        [
            f"`{score.row}`",
            score.split,
            *(_number(METRICS[metric].scale * score.value(metric), metric) for metric in SCORES),
            score.note,
        ]
        for score in scores
    ]
    return markdown(["row", "split", *(METRICS[metric].title for metric in SCORES), "what it is"], lines)


def headline_differences(summary: Summary) -> str:
    """Every headline row against ``none``, Holm-corrected."""
    corrected = {metric: summary.holm_p(metric) for metric in TESTED}
    lines = []
    for runs in summary.group("headline"):
        if runs.row.name == runs.row.against:
            continue
        other = summary.compared(runs)
        gains = {metric: runs.gain(other, metric) for metric in TESTED}
        cells = [gain_cell(gain, metric) + _p(corrected[metric][runs.row.name], gain) for metric, gain in gains.items()]
        lines.append([f"`{runs.row.name}`", _pairs(runs, other), *cells])
    return markdown(["row", "pairs", *(f"Δ {METRICS[metric].title}" for metric in TESTED)], lines)


def plain_differences(summary: Summary, rows: Sequence[RowRuns]) -> str:
    """Rows against what each is compared with, uncorrected."""
    lines = []
    for runs in rows:
        for against in dict.fromkeys((runs.row.against, runs.row.also_against)):
            if not against or against == runs.row.name:
                continue
            other = summary.rows[against]
            cells = [gain_cell(runs.gain(other, metric), metric) for metric in TESTED]
            lines.append([f"`{runs.row.name}`", f"`{against}`", _pairs(runs, other), *cells, runs.row.note])
    return markdown(
        ["row", "minus", "pairs", *(f"Δ {METRICS[metric].title}" for metric in TESTED), "what it is"], lines
    )


def cost_table(summary: Summary) -> str:
    """Speed and memory beside ``none`` of the same seeds; means over seeds."""
    lines = []
    for runs in (*summary.group("headline"), *summary.group("ablation")):
        records = list(runs.by_seed.values())
        if not records:
            continue
        other = summary.rows["none"]
        pairs = [(record, other.by_seed[seed]) for seed, record in runs.by_seed.items() if seed in other.by_seed]
        lines.append([f"`{runs.row.name}`", *_cost_cells(records, pairs)])
    return markdown(
        ["row", "steps/s", "of `none`", "waiting for data", "peak memory (MiB)", "more than `none`", "a run (s)"], lines
    )


def gain_cell(gain: PairedDifference, metric: str) -> str:
    """Mean and interval; bold where the interval excludes zero."""
    if gain.pairs == 0:
        return "–"
    mean = signed(gain.mean, metric)
    if not isfinite(gain.low):
        return f"{mean} (one pair)"
    interval = f"({signed(gain.low, metric)} … {signed(gain.high, metric)})"
    return f"**{mean}** {interval}" if gain.excludes_zero else f"{mean} {interval}"


def signed(value: float, metric: str) -> str:
    """A difference as shown, never ``-0.0``."""
    digits = METRICS[metric].digits
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def _cost_cells(records: Sequence[Record], pairs: Sequence[tuple[Record, Record]]) -> list[str]:
    peaks = [record.peak_rss_mib for record in records if record.peak_rss_mib is not None]
    more = [
        ours.peak_rss_mib - theirs.peak_rss_mib
        for ours, theirs in pairs
        if ours.peak_rss_mib is not None and theirs.peak_rss_mib is not None
    ]
    whole = [record.wall_s for record in records if record.resumed_at == 0]
    relative = [ours.steps_per_second / theirs.steps_per_second for ours, theirs in pairs]
    return [
        f"{fmean(record.steps_per_second for record in records):.2f}",
        f"{fmean(relative):.2f}" if relative else "–",
        f"{fmean(record.data_wait for record in records):.1%}",
        f"{fmean(peaks):.0f}" if peaks else "–",
        f"{fmean(more):+.0f}" if more else "–",
        f"{fmean(whole):.0f}" if whole else "–",
    ]


def _pairs(runs: RowRuns, other: RowRuns) -> str:
    pairs = len(runs.differences(other, "nds"))
    return str(pairs) if pairs >= runs.row.seeds else f"**{pairs} of {runs.row.seeds}**"


def _p(p: float, gain: PairedDifference) -> str:
    return "" if gain.pairs < 2 else f", p {p:.3f}" if p >= 0.001 else ", p < 0.001"


def _number(value: float, metric: str) -> str:
    return "–" if isnan(value) else f"{value:.{METRICS[metric].digits}f}"
