"""``make demo-teacher``: train the demo's teacher from ground truth. Until it is done, no cache is made from it."""

from pathlib import Path

import torch

from pipeline.console import console
from pipeline.dataset import DataChoice, chosen_scenes, chosen_split, open_data
from pipeline.paths import teacher_folder, teacher_weights
from pipeline.recipe import Recipe
from pipeline.training import seeded_detector, train_with_progress
from schemas.errors import RecipeError
from train.run import TrainingRun


def teacher_checkpoint(recipe: Recipe, choice: DataChoice, device: torch.device) -> Path | None:
    """The weights of a teacher that the recipe trains itself, trained now on the training split if they are missing.

    Returns:
        The weights, or None when the recipe expects published ones.
    """
    if recipe.teacher.training is None:
        return None
    finished = teacher_weights(teacher_folder(recipe))
    if not finished.exists():
        console.print("The demo's teacher is not trained yet: running `make demo-teacher` first.", style="bold")
        training_data = DataChoice(choice.data, choice.version)  # whatever split is cached, never train on val
        train_demo_teacher(recipe, training_data, teacher_folder(recipe), device, None)
    return finished


def train_demo_teacher(
    recipe: Recipe, choice: DataChoice, out: Path, device: torch.device, max_steps: int | None
) -> None:
    """Train the recipe's teacher; goes on from the last checkpoint.

    Args:
        recipe: must train its teacher.
        choice: data, split and scenes.
        out: the run's folder.
        device: where to train.
        max_steps: stop early, when this many steps are done in all.

    Raises:
        RecipeError: the recipe takes published weights.
        UserError: as the training loop.
    """
    training = recipe.teacher.training
    if training is None:
        raise RecipeError(f"Recipe {recipe.name!r} does not train its teacher; give CHECKPOINT=/path/to/weights.")
    tables = open_data(recipe, choice)
    run = TrainingRun(
        detector=seeded_detector(recipe.teacher.detector, training.seed),
        tables=tables,
        scene_names=chosen_scenes(tables, chosen_split(tables, choice), choice.scenes),
        cache=None,
        options=training,
        out=out,
        device=device,
    )
    outcome = train_with_progress("demo-teacher", recipe, run, max_steps)
    if outcome.finished:
        outcome.weights.replace(teacher_weights(out))
