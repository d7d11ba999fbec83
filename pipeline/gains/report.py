"""The study's report, written from the files of results alone: a page and two pictures."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.console import console
from pipeline.gains.places import Places
from pipeline.gains.plots import draw_curves, draw_gains
from pipeline.gains.record import read_records
from pipeline.gains.rows import INHERITED_ALONE, ROWS, Row
from pipeline.gains.summary import METRICS, RowRuns, Summary, summarise
from pipeline.gains.tables import (
    SIGNIFICANT,
    cost_table,
    headline_differences,
    plain_differences,
    scores_table,
    teacher_table,
)
from pipeline.gains.teacher_scores import STUDENTS_EQUAL, TeacherScore, read_teacher_scores
from scenes.whole_file import whole_file

FOUR = ("tempdistiller", "structured-kd", "fd3d", "unidistill")
TEMPORAL = ("tempdistiller", "structured-kd", "temporal-attention")
AIM_TEACHER, AIM_EACH, AIM_BEST = 10.0, 1.0, 4.0
"""NDS points: of the teacher above ``none``, of each of the four, of the best combination."""


_MEASUREMENTS = "benchmarks.md"
_LACKING = "too few seeds to say"


def write_report(places: Places, study: str | None, rows: Sequence[Row] = ROWS) -> None:
    """Write the page and the pictures of a study, finished or not.

    Args:
        places: files of results, and where to write.
        study: its hash; None for the one with most runs.
        rows: of the study.

    Raises:
        DataError: nothing has been run, or a file of results is damaged.
    """
    summary = summarise(read_records(places.rows), rows, study)
    teachers = read_teacher_scores(places.teacher)
    draw_gains(summary, places.gains_plot)
    curves = draw_curves(summary, places.curves_plot)
    text = "\n\n".join(_sections(summary, teachers, places, curves=curves))
    with whole_file(places.page) as file:
        file.write(f"{text}\n".encode())
    console.print(f"gains: {verdict(summary)} The report is {places.page}.", soft_wrap=True)


def verdict(summary: Summary) -> str:
    """In one line: who helps, who hurts, and who does not differ, by NDS after Holm's correction."""
    corrected = summary.holm_p("nds")
    told = {"better than none": list[str](), "worse than none": [], "not told apart from none": [], _LACKING: []}
    for runs in summary.group("headline"):
        name = runs.row.name
        if name == runs.row.against:
            continue
        gain = runs.gain(summary.compared(runs), "nds")
        if gain.pairs < 2:
            told[_LACKING].append(name)
        elif corrected[name] >= SIGNIFICANT:
            told["not told apart from none"].append(name)
        else:
            told["better than none" if gain.mean > 0 else "worse than none"].append(name)
    parts = [f"{what}: {', '.join(names)}" for what, names in told.items() if names]
    return f"NDS, Holm-corrected at {SIGNIFICANT:.0%}: {'; '.join(parts)}."


def _sections(summary: Summary, teachers: Sequence[TeacherScore], places: Places, *, curves: bool) -> list[str]:
    def link(path: Path) -> str:
        return os.path.relpath(path, places.page.parent)

    parts = [
        "# What the distillers gain",
        _how(summary, link(places.rows), (len(read_records(places.tuning)), link(places.tuning))),
        f"**{verdict(summary)}**",
        f"![Paired differences in NDS and velocity error]({link(places.gains_plot)})\n\n"
        "A diamond is the mean over seeds, its bar the 95 % interval, a dot one seed. Green: better than `none`, with "
        "an interval that excludes zero; red: worse; grey: undecided.",
        "## Scores\n\nMeans over seeds; after ± the standard deviation between seeds.",
        scores_table(summary.group("headline")),
        "## Paired differences to `none`\n\n"
        "Mean over seeds of the row's score minus that of `none` with the same seed, its 95 % t-interval, and p of the "
        "two-sided paired t-test, Holm-corrected over the headline rows for each metric by itself. Bold: the interval "
        "(uncorrected) excludes zero. NDS and mAP in points of 100, where higher is better; of errors lower is better.",
        headline_differences(summary),
        "## What the losses add\n\nThe rows of one distiller start from the teacher's head, which is worth something "
        "by itself: the same rows minus `inherited-alone`, intervals of single comparisons, not corrected. `best` "
        "starts from the teacher's history fusion too; its ablations below take the two apart.",
        _beyond_inheriting(summary),
        "## Aims",
        "\n".join(f"* {line}" for line in _aims(summary, teachers)),
    ]
    if teachers:
        parts += ["## The teacher", teacher_table(teachers)]
    parts += _ablations_and_budget(summary)
    if curves:
        parts.append(f"![Scores along the training]({link(places.curves_plot)})")
    parts += [_COST, cost_table(summary), "## Settings of the rows", _settings(summary)]
    if (places.page.parent / _MEASUREMENTS).exists():
        parts.append(
            f"That training from the cache equals training from the live teacher is measured in [{_MEASUREMENTS}]"
            f"({_MEASUREMENTS})."
        )
    return parts


def _ablations_and_budget(summary: Summary) -> list[str]:
    return [
        "## Ablations\n\nThree seeds; intervals of single comparisons, not corrected.",
        plain_differences(summary, summary.group("ablation")),
        "## Three times the budget\n\nWhether the gain is that of an undertrained student.",
        scores_table(summary.group("budget")),
        plain_differences(summary, [runs for runs in summary.group("budget") if runs.row.against != "none"]),
    ]


def _beyond_inheriting(summary: Summary) -> str:
    """The rows of one distiller beside the one that only starts as they do."""
    beside = [RowRuns(replace(runs.row, against=INHERITED_ALONE), runs.by_seed) for runs in _of_one_distiller(summary)]
    return plain_differences(summary, beside)


def _of_one_distiller(summary: Summary) -> list[RowRuns]:
    """The headline rows that distil by one distiller."""
    return [
        runs
        for runs in summary.group("headline")
        if len(runs.row.distillers) == 1 and runs.row.name not in ("none", INHERITED_ALONE)
    ]


_COST = (
    "## Cost\n\nOf one training process: steps a second with waiting for data, and the most memory it held (mapped "
    "pages of the cache among it), beside `none` with the same seed. The last column has start and scoring in it."
)


def _how(summary: Summary, rows: str, tuning: tuple[int, str]) -> str:
    tuned, tuning_file = tuning
    chosen = (
        f"settings were chosen on its `tune` scenes ([{tuned} tuning runs]({tuning_file}))"
        if tuned
        else "no setting has been tuned"
    )
    records = summary.records
    seeds = sorted({record.seed for record in records})
    steps = sorted({record.steps for runs in summary.group("headline") for record in runs.by_seed.values()})
    splits = sorted({record.split for record in records})
    packages, programs, machines, threads, generators = (
        "; ".join(sorted({str(getattr(record, name)) for record in records}))
        for name in ("packages", "program", "machine", "threads", "generator")
    )
    lines = [
        "Written by `make gains` (`make gains ARGS=--report` writes it again from the files); do not edit.",
        f"Same student, same data, same number of steps ({', '.join(map(str, steps))}), and for each seed "
        f"({', '.join(map(str, seeds))}) the same first weights and the same order of clips: rows differ in what the "
        f"teacher cache says to the student. Trained on the world's `train` scenes; {chosen}; the scores below are the "
        f"official nuScenes evaluation on `{', '.join(splits)}`.",
        f"Study `{summary.study}`; {len(records)} runs ([raw numbers]({rows})); world generator {generators}; "
        f"{packages}; program {programs}; torch threads {threads}; {machines}.",
    ]
    if not all(runs.complete for runs in summary.rows.values()):
        lines.append("**Not finished**: rows in bold lack seeds, and rows without a number have not been run.")
    lines += [f"Not counted: {reason}." for reason in summary.left_out]
    return "\n\n".join(lines)


def _aims(summary: Summary, teachers: Sequence[TeacherScore]) -> list[str]:
    lines = []
    none = summary.rows["none"]
    splits = {record.split for record in none.by_seed.values()}
    teacher = next((score for score in teachers if score.row == STUDENTS_EQUAL and score.split in splits), None)
    if teacher is not None:
        lead = 100 * teacher.nds - none.mean("nds")
        lines.append(f"Teacher at least {AIM_TEACHER:g} NDS above `none`: {_met(lead >= AIM_TEACHER)} ({lead:+.1f}).")
    for name in FOUR:
        gain = summary.rows[name].gain(none, "nds")
        if gain.pairs > 1:
            reached = _met(gain.mean >= AIM_EACH and gain.low > 0)
            interval = f"{gain.mean:+.1f}, {gain.low:+.1f} … {gain.high:+.1f}"
            lines.append(f"`{name}` at least +{AIM_EACH:.1f} NDS, interval above zero: {reached} ({interval}).")
    best = summary.rows["best"].gain(none, "nds")
    if best.pairs > 1:
        lines.append(f"`best` at least +{AIM_BEST:.1f} NDS: {_met(best.mean >= AIM_BEST)} ({best.mean:+.1f}).")
    falls = {
        runs.row.name: runs.gain(none, "mave").mean
        for runs in _of_one_distiller(summary)
        if runs.gain(none, "mave").pairs > 1
    }
    if falls:
        most = min(falls, key=lambda name: falls[name])
        lines.append(
            f"Velocity error falls most with a temporal distiller: {_met(most in TEMPORAL and falls[most] < 0)} "
            f"(`{most}`, {falls[most]:+.{METRICS['mave'].digits}f} m/s)."
        )
    return lines or ["Too few runs to say."]


def _met(reached: bool) -> str:
    return "**met**" if reached else "**missed**"


def _settings(summary: Summary) -> str:
    lines = []
    for runs in summary.rows.values():
        values = ", ".join(f"`{assignment}`" for assignment in runs.row.overrides) or "as the recipe has it"
        lines.append(f"* `{runs.row.name}` ({' + '.join(runs.row.distillers)}): {runs.row.note}; {values}")
    return "\n".join(lines)
