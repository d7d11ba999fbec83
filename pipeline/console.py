"""What the programs print: progress with rate and ETA, tables, and errors. Plain lines when not on a terminal."""

import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

_LOG_WIDTH = 120
"""Columns where there is no terminal to ask, in a log file: tables need not be squeezed into 80."""

console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else _LOG_WIDTH)
error_console = Console(stderr=True, highlight=False, markup=False)

_SECONDS_BETWEEN_PLAIN_LINES = 10.0


class Tracker:
    """Progress of one long task: ``advance`` is called as pieces finish, with a short note on how it goes."""

    def __init__(self, title: str, total: int, unit: str) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._done = 0
        self._resumed: int | None = None
        self._note = ""
        self._started = self._printed = time.monotonic()
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[unit]}"),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
            )
            self._task = self._bar.add_task(title, total=total, unit=unit, rate="", note="")

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count finished pieces; ``note`` replaces the last one shown when not empty."""
        self.reach(self._done + count, note)

    def reach(self, done: int, note: str = "") -> None:
        """Set how many pieces are finished; a resumed task starts far along."""
        self._resumed = done - 1 if self._resumed is None else self._resumed
        self._done = done
        self._note = note or self._note
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, rate=self._rate(), note=self._note)
            return
        now = time.monotonic()
        if now - self._printed >= _SECONDS_BETWEEN_PLAIN_LINES:
            self._printed = now
            console.print(self._line(), soft_wrap=True)

    def _per_second(self) -> float:
        elapsed = time.monotonic() - self._started
        return (self._done - (self._resumed or 0)) / elapsed if elapsed > 0 else 0.0

    def _rate(self) -> str:
        return f"{self._per_second():.1f} {self._unit}/s"

    def _line(self) -> str:
        elapsed = time.monotonic() - self._started
        left = (self._total - self._done) / self._per_second() if self._per_second() > 0 else float("nan")
        share = f"{self._done}/{self._total} {self._unit}"
        line = f"{self._title}: {share}, {self._rate()}, {elapsed:.0f} s gone, about {left:.0f} s left  {self._note}"
        return line.rstrip()

    def __enter__(self) -> "Tracker":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        if kind is not None and self._done == 0:
            return  # refused before it began: the error alone is what matters
        elapsed = time.monotonic() - self._started
        console.print(f"{self._title}: {self._done}/{self._total} {self._unit} in {elapsed:.1f} s", soft_wrap=True)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; all columns but the first are right-aligned."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(header):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
