"""What every engine is told, and what it tells while scenes are cached."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from schemas.errors import RecipeError
from schemas.fidelity import Fidelity

EngineName = Literal["serial", "dask"]

_SCHEDULER = re.compile(r"([a-z]+://)?\S+:\d+/?")


@dataclass(frozen=True)
class Part:
    """Every ``count``-th scene, beginning with the ``index``-th: the share of one of several independent runs."""

    index: int
    count: int

    def of(self, names: Sequence[str]) -> tuple[str, ...]:
        """The scenes of this part. The parts of a list are disjoint and make up the list."""
        return tuple(names[self.index :: self.count])


@dataclass(frozen=True)
class EngineChoice:
    """How scenes are spread.

    Attributes:
        name: ``serial``: this process; ``dask``: the workers of a dask cluster.
        scheduler: address of a running dask scheduler; None for a cluster on this machine.
        workers: processes of a cluster on this machine; None for one a GPU, or one on a CPU.
        part: the share of this run; None for all.
    """

    name: EngineName = "serial"
    scheduler: str | None = None
    workers: int | None = None
    part: Part | None = None


@runtime_checkable
class StageEvents(Protocol):
    """What the program shows while an engine works."""

    def frame_done(self, scene_name: str) -> None:
        """One more frame was computed."""

    def scene_failed(self, scene_name: str, reason: str) -> None:
        """A scene cannot be cached now; the others go on."""

    def fidelity_measured(self, fidelity: Fidelity) -> None:
        """How far the first frames' stored numbers are from the computed ones."""


def parse_part(text: str) -> Part:
    """The part written as ``i/n``, counted from 0.

    Raises:
        RecipeError: anything else.
    """
    index, slash, count = text.partition("/")
    if slash and index.isdecimal() and count.isdecimal() and int(index) < int(count):
        return Part(int(index), int(count))
    raise RecipeError(f"--part {text!r}: expected i/n with i from 0 to n-1, for example 0/4, 1/4, 2/4 and 3/4.")


def engine_choice(name: EngineName, scheduler: str | None, workers: int | None, part: str | None) -> EngineChoice:
    """The engine that the command line asks for; naming a scheduler or workers asks for dask.

    Raises:
        RecipeError: a part that is none, an address that is none, or workers for a cluster that has its own.
    """
    if scheduler is not None and workers is not None:
        raise RecipeError(
            f"--workers {workers} starts a cluster on this machine, --scheduler {scheduler} uses one that has workers "
            "already: drop one of them."
        )
    if scheduler is not None and not _SCHEDULER.fullmatch(scheduler):
        raise RecipeError(
            f"--scheduler {scheduler!r}: expected the address that `dask scheduler` prints when it starts, "
            "for example tcp://10.0.0.1:8786."
        )
    spread = "dask" if scheduler is not None or workers is not None else name
    return EngineChoice(spread, scheduler, workers, None if part is None else parse_part(part))
