"""Run the study's processes, a few at once, and stop them gently: each saves its state and ends."""

import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import sleep

from train.interruption import stop_on_signal

_PAUSE_S = 0.2


@dataclass(frozen=True)
class Process:
    """One process to run.

    Attributes:
        name: for people.
        command: its arguments.
        log: file that what it prints is added to.
        threads: of the numerical libraries in it.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    threads: int = 1


def row_process(name: str, folder: Path, threads: int) -> Process:
    """The process of one run of the study."""
    command = (sys.executable, "-m", "pipeline.gains.run_row", str(folder))
    return Process(name, command, folder / "log.txt", threads)


def run_all(
    processes: Sequence[Process],
    jobs: int,
    on_start: Callable[[int], None],
    on_end: Callable[[int, int], None],
) -> None:
    """Run processes until all have ended, ``jobs`` of them at once.

    Ctrl-C and SIGTERM are passed on to those at work as SIGTERM, once, and their end is waited for.

    Args:
        processes: started in this order.
        jobs: most at once.
        on_start: called with a process's number.
        on_end: called with a process's number and exit status.

    Raises:
        KeyboardInterrupt: somebody asked to stop; those that had not ended are stopped.
    """
    waiting = deque(range(len(processes)))
    running: dict[int, subprocess.Popen[bytes]] = {}
    with stop_on_signal() as stop:
        try:
            while (waiting or running) and not stop.requested:
                while waiting and len(running) < jobs:
                    number = waiting.popleft()
                    running[number] = _start(processes[number])
                    on_start(number)
                _collect(running, on_end)
                sleep(_PAUSE_S)
        finally:
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.wait()
    if stop.requested:
        for number, process in running.items():
            if process.returncode == 0:  # it was done all the same
                on_end(number, 0)
        raise KeyboardInterrupt


def _start(process: Process) -> subprocess.Popen[bytes]:
    """In a session of its own: Ctrl-C reaches us alone, and we pass it on."""
    threads = str(process.threads)
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    with process.log.open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - our own program
            process.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )


def _collect(running: dict[int, subprocess.Popen[bytes]], on_end: Callable[[int, int], None]) -> None:
    for number in [number for number, process in running.items() if process.poll() is not None]:
        on_end(number, running.pop(number).returncode)
