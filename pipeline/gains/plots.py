"""The study's two pictures: what each row gains, and how scores grow with training."""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline.gains.summary import METRICS, RowRuns, Summary

SHOWN = ("nds", "mave")
_BETTER, _WORSE, _UNDECIDED = "#1a7a3c", "#b3261e", "#5f6368"


def draw_gains(summary: Summary, path: Path) -> None:
    """Mean paired difference of every headline row with its interval, and a dot for each seed; NDS and mAVE."""
    rows = [runs for runs in summary.group("headline") if runs.row.name != runs.row.against and runs.by_seed]
    figure = Figure(figsize=(10, 1.2 + 0.42 * max(len(rows), 1)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, metric in zip((left, right), SHOWN, strict=True):
        _draw_differences(axes, summary, rows, metric)
    left.set_yticks(range(len(rows)), [runs.row.name for runs in rows])
    left.set_ylim(len(rows) - 0.5, -0.5)
    _save(figure, path)


def _draw_differences(axes: Axes, summary: Summary, rows: Sequence[RowRuns], metric: str) -> None:
    shown = METRICS[metric]
    better = "right is better" if shown.higher_is_better else "left is better"
    axes.axvline(0, color="black", linewidth=0.8)
    for place, runs in enumerate(rows):
        gain = runs.gain(summary.compared(runs), metric)
        helps = (gain.mean > 0) == shown.higher_is_better
        color = (_BETTER if helps else _WORSE) if gain.excludes_zero else _UNDECIDED
        if isfinite(gain.low):
            axes.plot([gain.low, gain.high], [place, place], color=color, linewidth=2.2, solid_capstyle="butt")
        axes.plot([gain.mean], [place], marker="D", markersize=6, color=color)
        seeds = list(runs.differences(summary.compared(runs), metric).values())
        axes.plot(seeds, [place + 0.22] * len(seeds), "o", markersize=3, color=color, alpha=0.6)
    axes.set_title(f"{shown.title} minus that of none, same seed ({better})", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(axis="x", linewidth=0.4, alpha=0.6)


def draw_curves(summary: Summary, path: Path) -> bool:
    """Scores along the training of the longer-budget rows; whether there was anything to draw."""
    rows = [runs for runs in summary.group("budget") if any(record.curve for record in runs.by_seed.values())]
    if not rows:
        return False
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2), SHOWN, strict=True):
        scale = METRICS[metric].scale
        for number, runs in enumerate(rows):
            for seed, record in sorted(runs.by_seed.items()):
                steps = [point.step for point in record.curve]
                scores = [scale * point.value(metric) for point in record.curve]
                label = runs.row.name if seed == min(runs.by_seed) else None
                axes.plot(steps, scores, marker=".", color=f"C{number}", linewidth=1.2, label=label)
        axes.set_xlabel("step", fontsize=8)
        axes.set_title(f"{METRICS[metric].title} on the tune scenes, a line for each seed", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(linewidth=0.4, alpha=0.6)
        axes.legend(fontsize=8)
    _save(figure, path)
    return True


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=130, metadata={"Software": ""})
