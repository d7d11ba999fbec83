"""The teacher's own rows: each is scored once by ``make evaluate`` and filed by hand, with how it was made.

    python -m pipeline.gains.teacher_scores results/demo/teacher.csv teacher path/to/score.json "as it filled the cache"

Where the demo's teacher has its lead from is told by three that go on from its weights for equally long (400 steps),
one with what it has, one without history, one with the student's images, each scored as it was trained:

    ON="--set teacher.training.init.weights=shipped:demo-teacher --set teacher.training.steps=400
        --set teacher.training.history_from_step=0 --set teacher.training.optimizer.lr=5e-4"

    trained-on      $ON --set teacher.name=demo-trained-on
    no-past         $ON --set teacher.name=demo-no-past --set teacher.training.history_from_step=1000000000
                    --set teacher.detector.loss.velocity_needs_history=false
    small-images    $ON --set teacher.name=demo-small-images --set teacher.detector.preprocessing.scale=0.5
                    --set teacher.detector.preprocessing.pad_multiple=16

by ``python -m pipeline demo-teacher <these> --out FOLDER``, then ``python -m pipeline evaluate --model teacher <these>
--checkpoint FOLDER/teacher.safetensors --split val`` (``no-past`` with ``--no-history``).
"""

import csv
import io
import json
import sys
from pathlib import Path

from pydantic import ConfigDict, ValidationError

from pipeline.gains.record import SCORES, OfficialScores
from scenes.whole_file import whole_file
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


def file_teacher_score(path: Path, row: str, score_file: Path, note: str) -> None:
    """Add a row from the ``score.json`` of an evaluation, in the place of one of the same name and split.

    Raises:
        DataError: the file of rows is damaged.
    """
    score = json.loads(score_file.read_text())
    errors = {name.lower(): value for name, value in score["tp_errors"].items()}
    filed = TeacherScore(row=row, split=score["split"], note=note, nds=score["nds"], map=score["mean_ap"], **errors)
    kept = [known for known in read_teacher_scores(path) if (known.row, known.split) != (row, filed.split)]
    columns = ("row", "split", *SCORES, "note")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for known in (*kept, filed):
        values = (getattr(known, column) for column in columns)
        writer.writerow([round(value, 6) if isinstance(value, float) else value for value in values])
    with whole_file(path) as file:
        file.write(text.getvalue().encode())


if __name__ == "__main__":
    file_teacher_score(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4])
