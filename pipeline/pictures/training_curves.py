"""Loss terms, learning rate and gradient norm of runs over their steps, from the logs that the runs left."""

import json
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pipeline.pictures.canvas import Canvas
from train.run_folder import RunFolder

_COLUMNS = 4
_PANEL_IN = (3.0, 1.75)
_GAP_IN = (0.62, 0.62)
_TOP_IN = 0.75
_DPI = 110.0
_SMOOTHED_OVER = 0.05
"""Share of a curve's points that the thick line is a mean over, weights falling off exponentially."""
_SHOWN_QUANTILE = 0.98
"""The largest values of a long curve lie above its panel: the first steps would squeeze all others."""
_LONG = 50
"""Points that make a curve long."""
_COLORS = ("#d95f02", "#1f78b4")
"""Of the first run, and of its twin."""

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Steps and values, (n,) each."""


def save_curves(runs: Sequence[tuple[str, Path]], path: Path) -> None:
    """Draw the curves of one or two runs into one PNG, a panel for each quantity.

    Args:
        runs: label and folder of each.
        path: the picture; its folder is made.

    Raises:
        OSError: a log cannot be read, or the picture not be written.
    """
    curves = [(label, run_curves(folder)) for label, folder in runs]
    names = sorted({name for _, of_run in curves for name in of_run}, key=_order)
    rows = max(1, ceil(len(names) / _COLUMNS))
    columns = max(1, min(_COLUMNS, len(names)))
    width_in = 0.55 + columns * (_PANEL_IN[0] + _GAP_IN[0])
    canvas = Canvas(width_in, _TOP_IN + rows * (_PANEL_IN[1] + _GAP_IN[1]))
    canvas.text(0.15, 0.2, "Training curves: thin as logged, thick smoothed", 10.0, bold=True)
    for number, name in enumerate(names):
        row, column = divmod(number, _COLUMNS)
        left_in = 0.55 + column * (_PANEL_IN[0] + _GAP_IN[0])
        axes = canvas.axes(left_in, _TOP_IN + row * (_PANEL_IN[1] + _GAP_IN[1]), *_PANEL_IN)
        _draw_panel(axes, name, [of_run.get(name) for _, of_run in curves])
    handles = [Line2D([], [], color=color, label=label) for color, (label, _) in zip(_COLORS, curves, strict=False)]
    anchor = (1 - 0.15 / canvas.width_in, 1 - 0.1 / canvas.height_in)
    canvas.figure.legend(handles=handles, loc="upper right", bbox_to_anchor=anchor, ncols=2, fontsize=8, frameon=False)
    canvas.save(path, _DPI)


def run_curves(folder: Path) -> dict[str, Curve]:
    """Everything that a run logged, by name: loss terms, learning rate, gradient norm, and scores along the way.

    Raises:
        OSError: the log cannot be read.
    """
    files = RunFolder(folder)
    entries = [_quantities(entry) for entry in _lines(files.metrics)]
    entries += [{"step": float(entry["step"]), "NDS": float(entry["nds"])} for entry in _lines(files.scores)]
    names = {name for entry in entries for name in entry} - {"step"}
    return {name: _curve(entries, name) for name in names}


def _quantities(entry: Mapping[str, Any]) -> dict[str, float]:
    terms = {name: value for name, value in entry["terms"].items() if value is not None}
    detection = sum(float(value) for name, value in terms.items() if name.startswith("detection/"))
    others = {"step": float(entry["step"]), "all detection terms": detection, "learning rate": entry["lr"]}
    if entry["grad_norm"] is not None:
        others["gradient norm"] = entry["grad_norm"]
    return others | terms


def _curve(entries: Sequence[Mapping[str, float]], name: str) -> Curve:
    points = sorted((entry["step"], entry[name]) for entry in entries if name in entry)
    steps, values = np.array(points, dtype=np.float64).T
    return steps, values


def _order(name: str) -> tuple[int, str]:
    """Scores first, then detection, then distillers' terms, then what is no loss."""
    first = ("NDS", "all detection terms")
    if name in first:
        return first.index(name), name
    if "/" not in name:
        return 9, name
    return (2 if name.startswith("detection/") else 3), name


def _draw_panel(axes: Axes, name: str, curves: Sequence[Curve | None]) -> None:
    shown: list[float] = []
    for color, curve in zip(_COLORS, curves, strict=False):
        if curve is None:
            continue
        steps, values = curve
        axes.plot(steps, values, color=color, linewidth=0.7, alpha=0.35)
        axes.plot(steps, _smoothed(values), color=color, linewidth=1.6)
        shown.extend((float(values.min()), float(np.quantile(values, _SHOWN_QUANTILE if len(values) >= _LONG else 1))))
    low, high = min(shown), max(shown)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set_ylim(low - margin, high + margin)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.ticklabel_format(axis="y", scilimits=(-3, 4))
    axes.yaxis.get_offset_text().set_fontsize(6.5)
    axes.set_title(name, fontsize=8, pad=3)
    axes.set_xlabel("step", fontsize=7, labelpad=1)
    axes.tick_params(labelsize=6.5, length=2, pad=1.5)
    axes.grid(visible=True, linewidth=0.4, color="0.88")
    axes.spines[["top", "right"]].set_visible(False)


def _smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A running mean whose weights fall off exponentially, without a pull towards zero at the beginning."""
    keep = 1 - 1 / max(1.0, _SMOOTHED_OVER * len(values))
    smooth = np.empty_like(values)
    total = weight = 0.0
    for place, value in enumerate(values):
        total, weight = keep * total + value, keep * weight + 1
        smooth[place] = total / weight
    return smooth


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
