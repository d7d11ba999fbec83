"""``make gains``: run what the study lacks, keep each finished run at once, and tell how far it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from pipeline.console import console
from pipeline.gains.record import Measured, Record, add_record, read_records
from pipeline.gains.run_row import JOB_FILE, LOG_FILE, MEASURED_FILE
from pipeline.gains.study import PlannedRun, StudyOptions
from pipeline.gains.workers import row_process, run_all
from scenes.whole_file import whole_file
from schemas.errors import UserError
from train.run_folder import RunFolder

_LOG_TAIL = 3


@dataclass(frozen=True)
class Standing:
    """Where the planned runs stand.

    Attributes:
        done: those that the file holds.
        todo: the others.
        foreign: how many runs the file holds that are of another study.
    """

    done: tuple[Record, ...]
    todo: tuple[PlannedRun, ...]
    foreign: int


def standing(runs: Sequence[PlannedRun], results: Path) -> Standing:
    """Compare the plan with the file.

    A run that another study has made just so counts, and is filed here too; one whose row has got another name, or says
    the same in other words, is filed under those.

    Raises:
        DataError: the file is damaged.
    """
    known = read_records(results)
    keys = {record.key: record for record in known}
    twins = {(record.fingerprint, record.seed): record for record in known}
    done, todo = [], []
    for run in runs:
        identity = run.identity
        key = (identity.study, identity.fingerprint, identity.seed)
        record = keys.get(key) or twins.get(key[1:])
        if record is None:
            todo.append(run)
            continue
        place = {name: getattr(identity, name) for name in ("study", "group", "row", "overrides")}
        if any(getattr(record, name) != value for name, value in place.items()):
            record = record.model_copy(update=place)
            add_record(results, record)
        done.append(record)
    studies = {run.identity.study for run in runs}
    return Standing(tuple(done), tuple(todo), sum(record.study not in studies for record in known))


def conduct(options: StudyOptions, runs: Sequence[PlannedRun], results: Path) -> None:
    """Run what is missing; each run's line is in the file as soon as it ends.

    Raises:
        UserError: some runs failed; the others are done.
        KeyboardInterrupt: stopped; finished runs are kept, and the others go on from their checkpoints next time.
    """
    now = standing(runs, results)
    console.print(
        f"gains: {len(runs)} runs planned, {len(now.done)} in {results} already, {len(now.todo)} to do"
        + (f"; {now.foreign} runs there are of other studies and are left alone" if now.foreign else ""),
        soft_wrap=True,
    )
    if not now.todo:
        return
    conductor = _Conductor(now.todo, results, options.jobs)
    processes = [row_process(run.name, run.folder, options.threads) for run in now.todo]
    for run in now.todo:
        run.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(run.folder / JOB_FILE) as file:
            file.write(run.job.model_dump_json(indent=1).encode())
    run_all(processes, options.jobs, conductor.started, conductor.ended)
    if conductor.failed:
        raise UserError(
            f"{len(conductor.failed)} of {len(now.todo)} runs failed: {' '.join(conductor.failed)} The others are in "
            f"{results}; run the same command again for these, once what is wrong is mended."
        )


class _Conductor:
    """Files what ends, and says how it goes."""

    def __init__(self, runs: Sequence[PlannedRun], results: Path, jobs: int) -> None:
        self.runs, self.results, self.jobs = runs, results, jobs
        self.failed: list[str] = []
        self._begun = monotonic()
        self._steps_done = 0
        self._ended = 0
        self._started: dict[int, float] = {}

    def started(self, number: int) -> None:
        run = self.runs[number]
        self._started[number] = monotonic()
        console.print(f"gains: {run.name} begins; its log is {run.folder / LOG_FILE}", soft_wrap=True)

    def ended(self, number: int, status: int) -> None:
        run = self.runs[number]
        measured_file = run.folder / MEASURED_FILE
        self._ended += 1
        self._steps_done += run.identity.steps
        if status != 0 or not measured_file.exists():
            self.failed.append(f"{run.name}: {_last_words(run.folder / LOG_FILE)}")
            console.print(f"gains: {self.failed[-1]}", style="red", soft_wrap=True)
            return
        measured = Measured.model_validate_json(measured_file.read_text())
        wall_s, date = monotonic() - self._started[number], datetime.now(UTC).isoformat(timespec="seconds")
        record = Record(**dict(run.identity), **dict(measured), wall_s=wall_s, date=date)
        add_record(self.results, record)
        for finished in (measured_file, RunFolder(run.folder).checkpoint):
            finished.unlink(missing_ok=True)  # a line removed from the file by hand means: train it again
        console.print(
            f"gains: {self._ended} of {len(self.runs)} done: {run.name}: NDS {100 * record.nds:.1f}"
            f"{self._beside(record, run.row.against)}, mAP {100 * record.map:.1f}, mAVE {record.mave:.2f}, "
            f"{record.wall_s:.0f} s; {self._left()}",
            soft_wrap=True,
        )

    def _beside(self, record: Record, against: str) -> str:
        """The difference in NDS to the row that it is compared with, where that has this seed."""
        for other in read_records(self.results):
            if (other.study, other.row, other.seed) == (record.study, against, record.seed) and against != record.row:
                return f" ({100 * (record.nds - other.nds):+.1f} to {against})"
        return ""

    def _left(self) -> str:
        """By steps: every run's are about as fast, and a run of three times the steps takes three times as long."""
        total = sum(run.identity.steps for run in self.runs)
        seconds = (monotonic() - self._begun) / self._steps_done * (total - self._steps_done)
        return f"about {seconds / 60:.0f} min left"


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
    return " ".join(lines[-_LOG_TAIL:]) or "ended without a word"
