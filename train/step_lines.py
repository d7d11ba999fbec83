"""JSON-lines files that follow a run's steps and read as one uninterrupted run, whatever happened in between."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from schemas.errors import UserError
from train.run_folder import disk_errors


class StepLines:
    """One line per entry, each with its ``step``.

    A resumed run first drops what was written after its checkpoint.

    Args:
        path: the file.
        steps_done: lines of later steps are dropped; 0 starts an empty file.
        what: what a line is, in messages.

    Attributes:
        kept: the entries that were there and stay.

    Raises:
        UserError: an existing file holds something else, or the disk refuses.
    """

    def __init__(self, path: Path, steps_done: int, what: str) -> None:
        lines = _lines_until(path, steps_done, what)
        self.kept: tuple[dict[str, Any], ...] = tuple(json.loads(line) for line in lines)
        self._path = path
        partial = path.with_name(f".{path.name}.partial")
        with disk_errors(f"writing {path.name}", path):
            partial.write_text("".join(lines))
            partial.replace(path)
            self._file = path.open("a")

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write an entry, which names its ``step``.

        Raises:
            UserError: the disk refuses.
        """
        with disk_errors(f"writing {self._path.name}", self._path):
            self._file.write(json.dumps(entry, allow_nan=False) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Nothing more will be written."""
        self._file.close()


def _lines_until(path: Path, steps_done: int, what: str) -> list[str]:
    """Whole lines of steps up to this one; a last line cut short by a crash is dropped."""
    if steps_done == 0 or not path.exists():
        return []
    kept = []
    for number, line in enumerate(path.read_text().splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            break
        try:
            step = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}, line {number} is no {what} of a training run ({error!r}). "
                "Restore or remove the file, or choose another folder with OUT=..."
            ) from error
        if step <= steps_done:
            kept.append(line)
    return kept
