"""The teacher's own rows: scores that are filed by hand, once, with how each was made."""

import csv
from pathlib import Path

from pydantic import ConfigDict, ValidationError

from pipeline.gains.record import SCORES, OfficialScores
from schemas.errors import DataError

STUDENTS_EQUAL = "teacher"
"""The row of the teacher that has filled the cache."""


class TeacherScore(OfficialScores):
    """One way of running or training the teacher; columns beyond these are kept and not read."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    row: str
    split: str
    note: str = ""


def read_teacher_scores(path: Path) -> tuple[TeacherScore, ...]:
    """The rows of the file; none when there is no such file.

    Raises:
        DataError: a line is no score.
    """
    if not path.exists():
        return ()
    with path.open(newline="", encoding="utf-8") as file:
        try:
            return tuple(TeacherScore.model_validate(line) for line in csv.DictReader(file))
        except ValidationError as error:
            problem = error.errors()[0]
            raise DataError(
                f"{path}: column {'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}. "
                f"Expected the columns row,split,{','.join(SCORES)},note."
            ) from error
