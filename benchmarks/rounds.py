"""Interleaved rounds: each contender once in every round, so that a machine whose speed drifts does so for all."""

import gc
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

Contender = Callable[[int], object]
"""Does the work of one round; it is told the round's number, so that all contenders can draw the same frames."""

WARM_UP_ROUND = 0
"""Run by every contender before anything is timed; the timed rounds count from 1."""


@dataclass(frozen=True)
class Spread:
    """What the rounds of one figure were.

    Attributes:
        median: to be quoted.
        low, high: minimum and maximum; a wide range says that the machine was busy with something else.
    """

    median: float
    low: float
    high: float

    def scaled(self, factor: float) -> "Spread":
        """The same in another unit."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)

    def __str__(self) -> str:
        return f"{_short(self.median)} ({_short(self.low)}–{_short(self.high)})"


def nothing() -> None:
    """The preparation of a warm round."""


def time_rounds(
    contenders: Mapping[str, Contender], rounds: int, prepare: Callable[[], None] = nothing
) -> dict[str, list[float]]:
    """Wall seconds of each contender in each round.

    Args:
        contenders: by name. Each round begins with another one, so that none always follows the same neighbour.
        rounds: timed rounds, after one that warms up.
        prepare: called, untimed, before each contender.

    Returns:
        By name, one value a round.
    """
    for contender in contenders.values():
        contender(WARM_UP_ROUND)
    return figures_of_rounds(
        {name: partial(_timed, contender) for name, contender in contenders.items()}, rounds, prepare
    )


def figures_of_rounds(
    contenders: Mapping[str, Callable[[int], float]], rounds: int, prepare: Callable[[], None] = nothing
) -> dict[str, list[float]]:
    """As ``time_rounds``, of contenders that warm up by themselves and return their own figure."""
    names = list(contenders)
    figures: dict[str, list[float]] = {name: [] for name in names}
    for number in range(1, rounds + 1):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            prepare()
            gc.collect()
            figures[name].append(contenders[name](number))
        last = ", ".join(f"{name or 'ours'} {values[-1]:.3g}" for name, values in figures.items())
        print(f"round {number} of {rounds}: {last}", file=sys.stderr, flush=True)
    return figures


def spread(values: Sequence[float]) -> Spread:
    """Median, minimum and maximum."""
    return Spread(statistics.median(values), min(values), max(values))


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """Of values taken in the same rounds, round by round."""
    return spread([over / under for over, under in zip(numerators, denominators, strict=True)])


def best_of(series: Sequence[Sequence[float]]) -> list[float]:
    """The fastest series, chosen by its median, not round by round: a peer that one can use."""
    return list(min(series, key=statistics.median))


def _timed(contender: Contender, number: int) -> float:
    begin = time.perf_counter()
    contender(number)
    return time.perf_counter() - begin


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
