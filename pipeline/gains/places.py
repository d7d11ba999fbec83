"""Where a study keeps its finished runs, and where its report goes: all of it in the repository."""

from dataclasses import dataclass
from pathlib import Path

DEMO = "demo"


@dataclass(frozen=True)
class Places:
    """Files of one recipe's study.

    Attributes:
        rows: its finished runs.
        tuning: those that settings were chosen by, on the tune scenes.
        teacher: the teacher's own scores.
        page: the report.
        gains_plot, curves_plot: its pictures.
    """

    rows: Path
    tuning: Path
    teacher: Path
    page: Path
    gains_plot: Path
    curves_plot: Path


def places_of(recipe_name: str) -> Places:
    """The demo's report is a page of the guide; that of another recipe lies beside its runs."""
    results = Path("results") / recipe_name
    pages = Path("docs") if recipe_name == DEMO else results
    return Places(
        rows=results / "rows.csv",
        tuning=results / "tuning.csv",
        teacher=results / "teacher.csv",
        page=pages / "results.md",
        gains_plot=pages / "results-gains.png",
        curves_plot=pages / "results-curves.png",
    )
