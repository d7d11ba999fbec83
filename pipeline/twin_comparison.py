"""A distilled student and its undistilled twin side by side: scores, differences, pictures of the same frames."""

import json
from pathlib import Path
from typing import Any

from pipeline.console import console, print_table
from pipeline.evaluate import Evaluated
from pipeline.hidden_and_moving import CONDITIONS, as_document, number
from pipeline.pictures.prediction_sheet import Prediction, SheetStyle, draw_frames
from pipeline.twins import Student
from scenes.score import Score
from scenes.whole_file import whole_file

FOLDER = "against-undistilled"
"""Within the distilled student's folder."""
COMPARISON_FILE = "comparison.json"
ONE_SEED = (
    "One seed ({seed}) shows one draw of the difference, not that there is one: two seeds of the same student differ, "
    "too. `make gains` repeats it over seeds and gives intervals."
)

Pair = tuple[Evaluated, Evaluated]
"""What was found of the distilled student, and of its twin."""


def show_comparison(students: tuple[Student, ...], found: Pair, data_root: Path, pictures: int) -> None:
    """Print both scores with their difference, and keep them with pictures of the same frames.

    Args:
        students: the distilled one and its twin.
        found: their evaluations on one split.
        data_root: where the images are.
        pictures: how many frames to draw.

    Raises:
        DataError: an image cannot be read.
        OSError: the folder cannot be written.
    """
    distilled, twin = students
    seed = distilled.recipe.student.training.seed
    folder = distilled.out / FOLDER
    _print_scores(distilled, twin, found)
    _print_conditions(distilled, found)
    console.print(ONE_SEED.format(seed=seed), soft_wrap=True)
    with whole_file(folder / COMPARISON_FILE) as file:
        file.write(json.dumps(_document(distilled, found), indent=2).encode())
    if pictures:
        nds = ", ".join(
            f"{student.label} {each.score.nds:.3f}" for student, each in zip(students[::-1], found[::-1], strict=True)
        )
        heading = f"{distilled.recipe.student.name} on {found[0].score.split}, NDS: {nds}; one seed ({seed})"
        sheet = SheetStyle(heading, distilled.recipe.student.detector.grid, data_root)
        predictions = [Prediction(twin.label, found[1].frames), Prediction(distilled.label, found[0].frames)]
        draw_frames(predictions, pictures, sheet, folder)
    console.print(f"Both on the same frames in {folder}" if pictures else f"Both scores in {folder}", soft_wrap=True)


def _official(score: Score) -> dict[str, float]:
    return {"NDS": score.nds, "mAP": score.mean_ap, **score.tp_errors}


def _print_scores(distilled: Student, twin: Student, found: Pair) -> None:
    ours, theirs = (_official(each.score) for each in found)
    rows = [
        (twin.label, *(f"{value:.3f}" for value in theirs.values())),
        (distilled.label, *(f"{value:.3f}" for value in ours.values())),
        ("difference", *(f"{ours[name] - theirs[name]:+.3f}" for name in ours)),
    ]
    score = found[0].score
    title = f"{distilled.recipe.student.name} on {score.split} ({score.samples} samples), official scores of one seed"
    print_table(title, ("student", *ours), rows)


def _print_conditions(distilled: Student, found: Pair) -> None:
    ours, theirs = (each.conditions for each in found)
    rows = [
        (
            CONDITIONS[name],
            str(ours[name].annotations),
            _change(theirs[name].recall, ours[name].recall),
            _change(theirs[name].velocity_error_mps, ours[name].velocity_error_mps),
        )
        for name in CONDITIONS
    ]
    title = f"Undistilled → {distilled.label}: hidden and moving objects (ours, not part of the official score)"
    print_table(title, ("annotated objects", "number", "recall", "velocity error, m/s"), rows)


def _change(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return f"{number(before)} → {number(after)}"
    return f"{before:.3f} → {after:.3f} ({after - before:+.3f})"


def _document(distilled: Student, found: Pair) -> dict[str, Any]:
    names = (distilled.label, "undistilled")
    ours, theirs = (_official(each.score) for each in found)
    return {
        "split": found[0].score.split,
        "seed": distilled.recipe.student.training.seed,
        "seeds": 1,
        "official": dict(zip(names, (ours, theirs), strict=True)),
        "difference": {name: ours[name] - theirs[name] for name in ours},
        "hidden_and_moving": {name: as_document(each.conditions) for name, each in zip(names, found, strict=True)},
    }
