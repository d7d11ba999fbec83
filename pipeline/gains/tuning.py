"""What has been tried on the tune scenes, as a table: each label beside ``none`` of the same seeds."""

from collections.abc import Sequence
from statistics import fmean

from pipeline.console import print_table
from pipeline.gains.record import Record
from pipeline.gains.summary import METRICS, TESTED
from pipeline.gains.tables import signed


def print_tuning(records: Sequence[Record], study: str) -> None:
    """Print the tuning runs of one study, by label and row, the best NDS last."""
    mine = [record for record in records if record.study == study]
    none = {record.seed: record for record in mine if record.row == "none"}
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in mine:
        groups.setdefault((record.label, record.row), []).append(record)
    order = sorted(groups, key=lambda group: fmean(record.nds for record in groups[group]))
    lines = [[label, row, *_cells(groups[label, row], none)] for label, row in order]
    header = ["label", "row", "seeds", "NDS", *(f"Δ {METRICS[metric].title}" for metric in TESTED)]
    print_table("On the tune scenes; Δ to none of the same seeds", header, lines)


def _cells(records: Sequence[Record], none: dict[int, Record]) -> list[str]:
    seeds = ",".join(str(record.seed) for record in sorted(records, key=lambda record: record.seed))
    paired = [(record, none[record.seed]) for record in records if record.seed in none]
    gains = [
        signed(
            METRICS[metric].scale * fmean(ours.value(metric) - theirs.value(metric) for ours, theirs in paired), metric
        )
        if paired
        else "–"
        for metric in TESTED
    ]
    return [seeds, f"{100 * fmean(record.nds for record in records):.1f}", *gains]
