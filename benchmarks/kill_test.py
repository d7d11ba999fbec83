"""Kill writers of a cache at random instants, and see that nothing is ever lost, torn or left over.

python -m benchmarks.kill_test --kills 200

Writers are real processes: ``python -m pipeline cache-teacher`` with every engine (a share of the kills), and quick
forks of this one that run the same function. They die of SIGKILL after a random time, or, the forks, at a random file
operation: before it, after it, or with half of a write done. After each death the store is opened and every visible
frame compared with a cache written in peace; the next writers resume; at the end of a round the cache must equal that
one file by file. Meanwhile a reader opens the cache over and over.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.killed_writers import (
    Death,
    Writer,
    folders,
    fork_writer,
    random_death,
    start_program,
    wait_until_writing,
)
from benchmarks.report import print_table
from benchmarks.store_checks import (
    APPENDING,
    BETWEEN,
    COMMITTING,
    Findings,
    Reader,
    Reference,
    doing,
    left_over,
    look,
    open_reference,
)
from scenes.synthetic import WorldOptions, write_world
from schemas.features import TIERS, Tier

Found = dict[tuple[str, str, str], Findings]
WORLD = WorldOptions(
    train_scenes=8, tune_scenes=1, val_scenes=1, frames_per_scene=4, image_width=112, image_height=63, seed=2
)
KINDS = {
    "serial": ((),),
    "--part 0/2 and 1/2": (("--part", "0/2"), ("--part", "1/2")),
    "two on the same scenes": ((), ()),
    "dask, all processes": (("--engine", "dask", "--workers", "2"),),
    "dask, one worker": (("--engine", "dask", "--workers", "2"),),
}
"""The writers that run at once, by what they are called in the table."""
FORKED = tuple(kind for kind in KINDS if "dask" not in kind)
NOT_KNOWN = "not known"
"""What a worker was doing when it was killed: its program goes on, and no trace stays."""
LAUNCHES = 4
"""Of writers that are killed, in one round."""


@dataclass(frozen=True)
class Peace:
    """An undisturbed run of one tier.

    Attributes:
        reference: what it wrote.
        seconds: how long it wrote.
        operations: its file operations.
    """

    reference: Reference
    seconds: float
    operations: int


@dataclass(frozen=True)
class Round:
    """One cache, whose writers are killed a few times and then left alone.

    Attributes:
        kind: of ``KINDS``.
        program: the real command line, or forks.
        tier: of the cache.
    """

    kind: str
    program: bool
    tier: Tier

    @property
    def label(self) -> tuple[str, str, str]:
        """Its row in the table."""
        return self.kind, "command line" if self.program else "forked", self.tier


class KillTest:
    """Runs rounds in a folder of its own."""

    def __init__(self, folder: Path, tiers: Sequence[Tier], seed: int) -> None:
        self._folder, self._chance = folder, random.Random(seed)
        self.tiers = tuple(tiers)
        self._data = folder / "world"
        write_world(WORLD, self._data, workers=1, on_scene=lambda _: None)
        self._peace = {tier: self._in_peace(tier) for tier in self.tiers}
        self._rounds = 0

    def _in_peace(self, tier: Tier) -> Peace:
        cache, counted = self._folder / f"reference-{tier}", self._folder / "counted"
        fork_writer(self._data, self._folder / f"warm-up-{tier}", tier).wait()
        begun = time.monotonic()
        status = fork_writer(self._data, cache, tier, count_to=counted).wait()
        assert status == 0, f"a writer in peace ended with status {status}"
        return Peace(open_reference(cache), time.monotonic() - begun, int(counted.read_text()))

    def run(self, one: Round, findings: Findings, kills: int) -> None:
        """Kill up to so many writers, then finish the cache and compare it."""
        self._rounds += 1
        cache, peace = self._folder / f"cache-{self._rounds}", self._peace[one.tier]
        reader = Reader(cache, peace.reference, self._folder / f"seen-{self._rounds}")
        visible: set[str] = set()
        before, launches = findings.kills.total(), 0
        while findings.kills.total() - before < kills and launches < LAUNCHES:
            launches += 1
            rest = 1 - len(visible) / len(peace.reference.cache.scene_names)
            if rest == 0:
                break
            self._launch(one, cache, rest, findings)
            visible = look(cache, peace.reference, visible, findings)
        status = fork_writer(self._data, cache, one.tier).wait()
        if status != 0:
            findings.complaints.append(f"the last resume ended with status {status}")
        look(cache, peace.reference, visible, findings)
        reader.stop(findings)
        over = left_over(cache, peace.reference)
        findings.leftovers += len(over)
        findings.complaints += [f"left over: {name}" for name in over]

    def _launch(self, one: Round, cache: Path, rest: float, findings: Findings) -> None:
        known = folders(cache)
        peace = self._peace[one.tier]
        if one.program:
            writers = [start_program(self._data, cache, one.tier, more) for more in KINDS[one.kind]]
            wait_until_writing(writers[0], cache, known)
        else:
            deaths = [self._death(peace, rest) for _ in KINDS[one.kind]]
            writers = [
                fork_writer(self._data, cache, one.tier, part=more[1] if more else None, death=death)
                for more, death in zip(KINDS[one.kind], deaths, strict=True)
            ]
        time.sleep(self._chance.uniform(0, peace.seconds * rest))
        if one.kind == "dask, one worker":
            findings.kills[NOT_KNOWN] += self._kill_worker(writers[0])
            if writers[0].wait() != 0:
                findings.complaints.append("the program failed after one of its workers was killed")
            return  # it has gone on, and swept what the worker left
        statuses = [writer.kill() for writer in writers]
        killed = statuses.count(signal.SIGKILL)
        if set(statuses) - {0, signal.SIGKILL}:
            findings.complaints.append(f"a writer failed before it was killed: statuses {statuses}")
        fresh = sorted(folders(cache) - known)
        found = [doing(cache, folder, peace.reference) for folder in fresh]
        found.sort(key=[COMMITTING, APPENDING].index)
        findings.kills.update((found + [BETWEEN] * killed)[:killed])

    def _death(self, peace: Peace, rest: float) -> Death | None:
        """Half of the forks die of the clock instead."""
        if self._chance.random() < 0.5:
            return None
        return random_death(self._chance, int(peace.operations * rest))

    def _kill_worker(self, program: Writer) -> int:
        workers = program.workers()
        if not workers or program.ended():
            return 0
        os.kill(self._chance.choice(workers), signal.SIGKILL)
        return 1


def rounds(tiers: Sequence[Tier], seed: int, program: bool) -> Iterator[Round]:
    """Every kind of writer in every tier, over and over, in random order."""
    chance = random.Random(seed)
    every = [Round(kind, program, tier) for kind in (KINDS if program else FORKED) for tier in tiers]
    while True:
        yield from chance.sample(every, len(every))


def run(test: KillTest, kills: int, seed: int, program: bool) -> Found:
    """Kill so many writers; what was found, by row."""
    found: Found = {}
    for one in rounds(test.tiers, seed, program):
        done = sum(findings.kills.total() for findings in found.values())
        if done >= kills:
            break
        print(f"{done} of {kills} killed; next: {', '.join(one.label)}", file=sys.stderr, flush=True)
        test.run(one, found.setdefault(one.label, Findings()), kills - done)
    return found


def tell(found: Found) -> int:
    """Print the table; returns the number of faults."""
    whole = Findings()
    rows = []
    for label, findings in [*sorted(found.items()), (("all", "", ""), whole)]:
        if findings is not whole:
            whole.kills.update(findings.kills)
            whole.lost += findings.lost
            whole.bad += findings.bad
            whole.leftovers += findings.leftovers
            whole.looks += findings.looks
            whole.complaints += findings.complaints
        counts = (
            findings.kills.total(),
            *(findings.kills[phase] for phase in (APPENDING, COMMITTING, BETWEEN, NOT_KNOWN)),
        )
        faults = (findings.lost, findings.bad, findings.leftovers, findings.looks, len(findings.complaints))
        rows.append((*label, *map(str, counts + faults)))
    print_table(
        (
            *("writers", "how", "tier", "kills", APPENDING, COMMITTING, BETWEEN, NOT_KNOWN),
            *("scenes lost", "frames bad", "left over", "looks of the reader", "complaints"),
        ),
        rows,
    )
    for complaint in sorted(set(whole.complaints)):
        print(complaint)
    return whole.lost + whole.bad + whole.leftovers + len(whole.complaints)


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="at least so many in all")
    parser.add_argument("--programs", type=int, default=60, help="kills of the real command line, among them")
    parser.add_argument("--tiers", nargs="+", choices=TIERS, default=TIERS)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kill-test-") as folder:
        os.chdir(folder)  # the programs keep their index of the data here
        test = KillTest(Path(folder), arguments.tiers, arguments.seed)
        programs = min(arguments.programs, arguments.kills)
        found = run(test, arguments.kills - programs, arguments.seed, program=False)
        found |= run(test, programs, arguments.seed, program=True)
        faults = tell(found)
    print(f"seed {arguments.seed}, {time.monotonic() - begun:.0f} s, {faults} faults")
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    main()
