"""What an evaluation leaves behind, and how to find it again.

submission.json  the detections, in the form of the nuScenes detection task
score.json       the official score; apart from it our own measurement of hidden and moving objects, and what was scored
scores.csv       AP and errors by class
plots/           the devkit's plots
pictures/        cameras and maps of some frames
"""

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.hidden_and_moving import ConditionScore, as_document
from scenes.score import Score
from scenes.submission import SUBMISSION_FILE
from scenes.whole_file import whole_file

SCORE_FILE = "score.json"
TABLE_FILE = "scores.csv"
PLOTS_FOLDER = "plots"
PICTURES_FOLDER = "pictures"

Identity = Mapping[str, str]
"""What was scored on what, as plain text."""


def evaluation_identity(
    weights: Path | None, tables_sha256: str, split: str, precision: str, *, history: bool
) -> Identity:
    """What makes two evaluations the same. Weights count by their content; without their file none is named."""
    scored = {"tables_sha256": tables_sha256, "split": split, "precision": precision}
    if not history:
        scored["history"] = "none"
    if weights is not None:
        with weights.open("rb") as file:
            scored["weights_sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    return scored


def write_score(folder: Path, score: Score, conditions: Mapping[str, ConditionScore], identity: Identity) -> None:
    """Write ``score.json`` and ``scores.csv``.

    Raises:
        OSError: the folder cannot be written.
    """
    table = io.StringIO()
    rows = csv.writer(table)
    rows.writerow(("class", "AP", *score.tp_errors))
    for name, ap in score.class_ap.items():
        rows.writerow((name, ap, *(score.class_tp_errors[name][error] for error in score.tp_errors)))
    rows.writerow(("all", score.mean_ap, *score.tp_errors.values()))
    with whole_file(folder / TABLE_FILE) as file:
        file.write(table.getvalue().encode())
    document = score.as_dict() | {"hidden_and_moving": as_document(conditions), "evaluated": dict(identity)}
    with whole_file(folder / SCORE_FILE) as file:  # last: where it stands, everything else does
        file.write(json.dumps(document, indent=2).encode())


def kept_score(folder: Path, identity: Identity) -> Score | None:
    """The score of exactly these weights on exactly this split, if the folder holds it with its submission."""
    try:
        document: dict[str, Any] = json.loads((folder / SCORE_FILE).read_text())
        score = Score.from_dict(document)
    except (OSError, ValueError, KeyError, TypeError):  # absent, older or damaged: it is made again
        return None
    fits = document.get("evaluated") == identity and (folder / SUBMISSION_FILE).exists()
    return score if fits else None
