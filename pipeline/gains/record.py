"""One finished run as a line of a CSV file, and the files that keep such lines in the repository."""

import csv
import fcntl
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from scenes.score import Score
from scenes.whole_file import whole_file
from schemas.errors import DataError

SCORES = ("nds", "map", "mate", "mase", "maoe", "mave", "maae")
"""Columns of the official numbers, in the papers' order; in a file all are fractions, metres, radians, m/s."""

_DIGITS = 6


def _from_json(value: object) -> object:
    return json.loads(value or "null") if isinstance(value, str) else value


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


class OfficialScores(BaseModel):
    """What the official evaluation says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nds: float
    map: float
    mate: float
    mase: float
    maoe: float
    mave: float
    maae: float

    def value(self, metric: str) -> float:
        """One of ``SCORES``."""
        number: float = getattr(self, metric)
        return number


def official(score: Score) -> OfficialScores:
    """A score under the names of ``SCORES``."""
    errors = {name.lower(): value for name, value in score.tp_errors.items()}
    return OfficialScores(nds=score.nds, map=score.mean_ap, **errors)


class CurvePoint(OfficialScores):
    """Scores along the way, on the tune scenes."""

    step: int


class Measured(OfficialScores):
    """What one run gave.

    Attributes:
        class_ap: average precision by class.
        curve: scores along the way, where the run took them.
        steps_per_second: over the logged steps: waiting for data, forward, backward and update.
        data_wait: share of that time spent waiting for data.
        peak_rss_mib: most memory the training process held; None where the process that ended the run did not train.
        resumed_at: the step that process began with.
    """

    class_ap: Annotated[dict[str, float], BeforeValidator(_from_json)]
    curve: Annotated[tuple[CurvePoint, ...], BeforeValidator(_from_json)] = ()
    steps_per_second: float
    data_wait: float
    peak_rss_mib: Annotated[float | None, BeforeValidator(_none_if_empty)] = None
    resumed_at: int = 0


class RunIdentity(BaseModel):
    """Which run it was.

    Attributes:
        study: short hash of what all runs that may be compared share: student, base training, main cache, data,
            split, packages and program.
        fingerprint: short hash of all that changes this run's numbers but its seed.
        label: of a tuning run; empty in the study itself.
        group, row, seed: its place in the study.
        distillers: comma-separated.
        overrides: of the row, and of the command line in a tuning run.
        steps: of the whole training.
        split: that was scored.
        recipe, cache, data: short hashes of the student's recipe, the cache (``none`` if unread) and the data set; the
            embedded world is the same one whatever processor has rendered it.
        generator: version of the synthetic world's generator.
        packages: those that compute, with their versions.
        program: version of this program, and of the study's own arithmetic.
        threads, jobs: of torch, and how many runs went on at once.
        machine: processor, cores and system.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str
    fingerprint: str
    label: str = ""
    group: str
    row: str
    seed: int
    distillers: str
    overrides: Annotated[tuple[str, ...], BeforeValidator(_from_json)]
    steps: int
    split: str
    recipe: str
    cache: str
    data: str
    generator: int
    packages: str
    program: str
    threads: int
    jobs: int
    machine: str


class Record(RunIdentity, Measured):
    """A finished run.

    Attributes:
        wall_s: seconds of the process that ended it, from its start to its end.
        date: when that was, UTC.
    """

    wall_s: float
    date: str

    @property
    def key(self) -> tuple[str, str, int]:
        """What makes it one line of its file."""
        return self.study, self.fingerprint, self.seed


COLUMNS = (*RunIdentity.model_fields, *Measured.model_fields, "wall_s", "date")


def read_records(path: Path) -> tuple[Record, ...]:
    """The finished runs of a file; none when there is no such file.

    Raises:
        DataError: a line is not a run.
    """
    if not path.exists():
        return ()
    records = []
    with path.open(newline="", encoding="utf-8") as file:
        for number, line in enumerate(csv.DictReader(file), start=2):
            try:
                records.append(Record.model_validate(line))
            except ValidationError as error:
                problem = error.errors()[0]
                column = ".".join(str(part) for part in problem["loc"])
                raise DataError(
                    f"{path}, run {number - 1}: column {column}: {problem['msg']}. Expected the columns "
                    f"{','.join(COLUMNS)}. Restore the file from git, or remove that line to have the run made again."
                ) from error
    return tuple(records)


def add_record(path: Path, record: Record) -> None:
    """Put a run into its file, which is written whole, sorted and always alike; a run of the same key is replaced.

    Raises:
        DataError: the file is there, and no such file.
    """
    with _held(path):
        kept = [known for known in read_records(path) if known.key != record.key]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(_cells(known) for known in sorted([*kept, record], key=_order))
        with whole_file(path) as file:
            file.write(text.getvalue().encode())


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Nobody else on this machine adds to files of the same folder within the block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _order(record: Record) -> tuple[object, ...]:
    return record.study, record.label, record.group, record.row, record.seed, record.fingerprint


def _cells(record: Record) -> list[str]:
    values = record.model_dump(mode="json")
    return [_cell(values[column]) for column in COLUMNS]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | dict):
        return json.dumps(_rounded(value), separators=(",", ":"))
    return str(_rounded(value))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(child) for key, child in value.items()}
    return [_rounded(child) for child in value] if isinstance(value, list) else value
