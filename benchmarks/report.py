"""Markdown tables of comparisons, with the goal beside each figure; a missed goal is told, never hidden."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.rounds import Spread

INSTALL = "not installed: `pip install -e '.[bench]'`"
COMPARISON_COLUMNS = ("compared with", "setting", "ours", "theirs", "ratio", "goal", "")


@dataclass(frozen=True)
class Goal:
    """What a ratio should reach.

    Attributes:
        limit: the goal.
        at_most: a ceiling, not a floor.
    """

    limit: float
    at_most: bool = False

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.limit:g}"

    def verdict(self, value: float) -> str:
        """``met``, or by how much it is missed."""
        if value <= self.limit if self.at_most else value >= self.limit:
            return "met"
        return f"missed by {abs(value / self.limit - 1):.0%}"


@dataclass(frozen=True)
class Comparison:
    """One row: ours against one other.

    Attributes:
        other: what ours is compared with.
        setting: warm or cold, verified or not, and the like.
        ours, theirs: in the unit that the table's heading names.
        ratio: how many times better ours is, round by round.
        goal: None where only the figure is wanted.
    """

    other: str
    setting: str
    ours: Spread
    theirs: Spread
    ratio: Spread
    goal: Goal | None = None

    def cells(self) -> tuple[str, ...]:
        """In the order of ``COMPARISON_COLUMNS``."""
        goal, verdict = ("", "") if self.goal is None else (str(self.goal), self.goal.verdict(self.ratio.median))
        return self.other, self.setting, str(self.ours), str(self.theirs), str(self.ratio), goal, verdict


def missing_peer(name: str) -> tuple[str, ...]:
    """The row of a peer that cannot be imported here."""
    return name, INSTALL, *[""] * (len(COMPARISON_COLUMNS) - 2)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table on standard output."""
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def print_comparisons(rows: Sequence[Comparison | tuple[str, ...]]) -> None:
    """A table of comparisons and of peers that are not there."""
    print_table(COMPARISON_COLUMNS, [row.cells() if isinstance(row, Comparison) else row for row in rows])
