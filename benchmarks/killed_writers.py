"""Writers of a cache killed with SIGKILL: ``python -m pipeline cache-teacher`` itself, and quick forks of it."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks import noise_teacher
from pipeline.cache_teacher import cache_teacher
from pipeline.dataset import DataChoice
from pipeline.recipes import load_recipe, with_cache, with_teacher_file
from pipeline.teacher_stage.engine import EngineChoice, parse_part
from pipeline.teacher_stage.job import StageChoice, StageOptions
from pipeline.teacher_stage.teacher import WeightsSource
from schemas.features import Tier

REPOSITORY = Path(__file__).resolve().parent.parent
TEACHER = f"{noise_teacher.__file__}:noise"
OPERATIONS = ("open", "write", "fsync", "replace", "mkdir", "unlink")
"""Calls that a writer's own death may come with."""
Manner = Literal["before", "after", "half of"]


@dataclass(frozen=True)
class Death:
    """When a forked writer kills itself.

    Attributes:
        operation: at which of its file operations, counted from 1.
        manner: before it, after it, or when half of the bytes are written.
    """

    operation: int
    manner: Manner


class CountedOperations:
    """Counts this process's file operations, and ends it at the chosen one."""

    def __init__(self, death: Death | None) -> None:
        self.count = 0
        self._death = death
        self._counting = threading.Lock()
        for name in OPERATIONS:
            setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            with self._counting:
                self.count += 1
                due = self._death is not None and self.count == self._death.operation
            manner = None if self._death is None or not due else self._death.manner
            if manner == "half of" and name == "write":
                operation(arguments[0], memoryview(arguments[1])[: len(arguments[1]) // 2])
            if manner in ("before", "half of"):
                os.kill(os.getpid(), signal.SIGKILL)
            result = operation(*arguments, **options)
            if manner == "after":
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return counted


@dataclass(frozen=True)
class Writer:
    """A writer process that has been started."""

    pid: int

    def kill(self) -> int:
        """End it and its children at once; its status, which is ``SIGKILL`` unless it had ended by itself."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        status = self.wait()
        while _alive_in_group(self.pid):  # on a busy machine its children hold their locks a little longer
            time.sleep(0.01)
        return status

    def wait(self) -> int:
        """Its status as ``os.waitpid`` gives it."""
        return os.waitpid(self.pid, 0)[1]

    def ended(self) -> bool:
        """Whether it has ended; it can still be waited for."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def workers(self) -> list[int]:
        """Process ids of its dask workers."""
        children = [int(pid) for path in Path(f"/proc/{self.pid}/task").glob("*/children") for pid in _words(path)]
        return [pid for pid in children if b"spawn_main" in _bytes(Path(f"/proc/{pid}/cmdline"))]


def fork_writer(
    data: Path,
    cache: Path,
    tier: Tier,
    part: str | None = None,
    death: Death | None = None,
    count_to: Path | None = None,
) -> Writer:
    """A fork of this process, which has everything imported, that runs the serial engine.

    Args:
        data: the nuScenes directory.
        cache: the cache.
        tier: its tier.
        part: ``i/n``; None for all scenes.
        death: when it kills itself; None when it does not.
        count_to: a file for the number of its file operations.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid != 0:
        return Writer(pid)
    status = 1
    try:
        os.setpgid(0, 0)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        operations = CountedOperations(death)
        spread = EngineChoice(part=None if part is None else parse_part(part))
        status = cache_teacher(choice_of(data, cache, tier), spread)
        if count_to is not None:
            count_to.write_text(str(operations.count))
    except BaseException:  # nothing may escape into the parent's copy of the stack
        traceback.print_exc()
    finally:
        os._exit(status)


def choice_of(data: Path, cache: Path, tier: Tier) -> StageChoice:
    """What every writer is told, in this process."""
    recipe = with_cache(with_teacher_file(load_recipe("demo", None), TEACHER), (), tier, None)
    return StageChoice(recipe, WeightsSource(None), DataChoice(data), cache, options=StageOptions(threads=1))


def start_program(data: Path, cache: Path, tier: Tier, more: Sequence[str]) -> Writer:
    """The real command line, in a process group of its own."""
    words = ("cache-teacher", "--teacher", TEACHER, "--data", str(data), "--cache", str(cache), "--tier", tier)
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *words, "--threads", "1", *more],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        process_group=0,
    )
    process.returncode = 0  # we wait for it ourselves
    return Writer(process.pid)


def random_death(chance: random.Random, operations: int) -> Death:
    """At any of so many operations, in any manner."""
    return Death(chance.randint(1, max(1, operations)), chance.choice(("before", "after", "half of")))


def wait_until_writing(writer: Writer, cache: Path, known: set[str]) -> None:
    """Until it has begun a scene, or has ended."""
    while not writer.ended() and folders(cache) <= known:
        time.sleep(0.002)


def folders(cache: Path) -> set[str]:
    """Names of the folders of scenes in flight, or left by the dead."""
    with suppress(FileNotFoundError):
        return {entry.name for entry in os.scandir(cache / ".writers" / "partial")}
    return set()


def _words(path: Path) -> list[str]:
    return _bytes(path).decode().split()


def _bytes(path: Path) -> bytes:
    with suppress(FileNotFoundError, ProcessLookupError):
        return path.read_bytes()
    return b""


def _alive_in_group(group: int) -> bool:
    """Whether a process of a process group runs, or is still being ended."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        state, _parent, process_group = _bytes(stat).rpartition(b")")[2].split()[:3] or (b"Z", b"", b"0")
        if int(process_group) == group and state not in (b"Z", b"X"):
            return True
    return False
