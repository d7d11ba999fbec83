"""The command line as a test sees it: arguments in, exit status and text out, everything written under one folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.__main__ import app

SMALL = (
    "--set=teacher.detector.encoder.layers=1",
    "--set=student.training.batch_size=2",
    "--set=student.training.precision=float32",
    "--set=student.training.steps=4",
    "--set=student.training.history_from_step=1",
    "--set=student.training.checkpoint_every=2",
    "--set=student.training.log_every=1",
    "--set=teacher.training.steps=2",
    "--set=teacher.training.batch_size=1",
    "--set=teacher.training.precision=float32",
)
"""The demo's recipe, cut down to seconds."""
PLAIN = {"train-student": ("--no-twin", "--pictures", "0"), "evaluate": ("--pictures", "0")}
"""What a command leaves out unless a test's own arguments, which come later, ask for it."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status, and standard output and error together, whitespace collapsed."""

    status: int
    text: str


class Program:
    """Runs commands of ``python -m pipeline`` in this process, on one data directory, with ``folder`` as the cwd."""

    def __init__(self, data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(folder)
        self.data, self.folder = data, folder

    def run(self, command: str, *arguments: str, sets: Sequence[str] = SMALL) -> Ended:
        """Run one command; errors that no user should see are raised."""
        plain = PLAIN.get(command, ())
        done = CliRunner().invoke(app, [command, "--data", str(self.data), *plain, *sets, *arguments])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Ended(done.exit_code, " ".join(done.output.split()))

    def succeeded(self, command: str, *arguments: str, sets: Sequence[str] = SMALL) -> str:
        """Run one command that must exit with 0; returns what it printed."""
        ended = self.run(command, *arguments, sets=sets)
        assert ended.status == 0, ended.text
        return ended.text

    def refused(self, command: str, *arguments: str, sets: Sequence[str] = SMALL) -> str:
        """Run one command that must exit with 1; returns what it printed."""
        ended = self.run(command, *arguments, sets=sets)
        assert ended.status == 1, ended.text
        return ended.text
