"""``make demo-teacher``: train the demo's teacher from ground truth. Until it is done, no cache is made from it.

The shipped recipe's teacher comes trained, with the program; this is how it was made, and how others are.
"""

from pathlib import Path

import torch

from detectors.catalogue import build
from detectors.weights import load_weights
from pipeline.console import console
from pipeline.dataset import DataChoice, chosen_scenes, chosen_split, open_data
from pipeline.evaluate import Evaluation, score_detector
from pipeline.paths import teacher_folder, teacher_weights
from pipeline.recipe import Recipe
from pipeline.shipped_weights import finished_teacher, ship, shipped
from pipeline.training import seeded_detector, train_with_progress
from scenes.splits import validation_split
from schemas.errors import CheckpointError, RecipeError
from train.distributed import ALONE, Processes
from train.run import TrainingRun


def teacher_checkpoint(recipe: Recipe, choice: DataChoice, device: torch.device) -> Path | None:
    """The weights of a teacher that the recipe trains itself, trained now on the training split if there are none.

    Returns:
        The weights, or None when the recipe expects published ones.
    """
    if recipe.teacher.training is None:
        return None
    finished = finished_teacher(recipe)
    if finished is None:
        came_with = shipped(recipe.teacher.name)
        if came_with is not None:
            differing = "; ".join(came_with.differences(recipe.world, recipe.teacher))
            console.print(f"The teacher that comes with the program does not fit: {differing}.", soft_wrap=True)
        console.print("The demo's teacher is not trained yet: running `make demo-teacher` first.", style="bold")
        training_data = DataChoice(choice.data, choice.version)  # whatever split is cached, never train on val
        train_demo_teacher(recipe, training_data, teacher_folder(recipe), device, None)
        finished = teacher_weights(teacher_folder(recipe))
    return finished


def train_demo_teacher(
    recipe: Recipe,
    choice: DataChoice,
    out: Path,
    device: torch.device,
    max_steps: int | None,
    processes: Processes = ALONE,
) -> None:
    """Train the recipe's teacher; goes on from the last checkpoint.

    Args:
        recipe: must train its teacher.
        choice: data, split and scenes.
        out: the run's folder.
        device: where to train.
        max_steps: stop early, when this many steps are done in all.
        processes: who trains together; ``device`` is this one's own.

    Raises:
        RecipeError: the recipe takes published weights.
        UserError: as the training loop.
    """
    training = recipe.teacher.training
    if training is None:
        raise RecipeError(f"Recipe {recipe.name!r} does not train its teacher; give CHECKPOINT=/path/to/weights.")
    tables = processes.first_then_all(lambda: open_data(recipe, choice))
    run = TrainingRun(
        detector=seeded_detector(recipe.teacher.detector, training.seed),
        tables=tables,
        scene_names=chosen_scenes(tables, chosen_split(tables, choice), choice.scenes),
        cache=None,
        options=training,
        out=out,
        device=device,
        processes=processes,
    )
    outcome = train_with_progress("demo-teacher", recipe, run, max_steps)
    if outcome.finished and processes.is_first:
        outcome.weights.replace(teacher_weights(out))


def ship_demo_teacher(recipe: Recipe, out: Path, device: torch.device) -> None:
    """Score a teacher that is trained to the end, and keep its weights with the program.

    The tuning split's score is for choosing among teachers, the validation split's for the record alone.

    Args:
        recipe: with an embedded world; its teacher's training is finished.
        out: the run's folder.
        device: where to score.

    Raises:
        CheckpointError: the training in ``out`` is not finished.
    """
    weights = teacher_weights(out)
    if not weights.exists():
        raise CheckpointError(f"No finished teacher in {out} to ship: run `make demo-teacher` to its last step first.")
    training = recipe.teacher.training
    assert training is not None
    tables = open_data(recipe, DataChoice())
    detector = build(recipe.teacher.detector)
    load_weights(detector, weights)
    detector.to(device)
    scores = {}
    for split in ("tune", validation_split(tables.version)):
        evaluation = Evaluation(tables, split, training.precision, device, out / f"evaluation-{split}")
        scores[split] = score_detector(recipe.teacher.name, detector, evaluation).score
    kept = ship(recipe, weights, scores)
    console.print(f"Shipped: {kept.path} and the record beside it.", soft_wrap=True)
