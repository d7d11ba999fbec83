"""Another student, or another start, for a recipe: what ``--student``, ``--init`` and ``--init-backbone`` change.

The teacher's cache is the recipe's whoever learns from it, so every student of a recipe shares one.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from detectors.catalogue import DETECTORS
from pipeline.recipe import Recipe, override
from schemas.errors import RecipeError

PUBLISHED_CLIPS: Mapping[str, int] = {
    "bevformer-base": 4,
    "bevformer-small": 3,
    "bevformer-tiny": 3,
    "fd3d-small": 4,
    "fd3d-tiny": 4,
}
"""Keyframes in a clip that each published detector was trained on, the supervised one included."""


def with_student(recipe: Recipe, name: str | None) -> Recipe:
    """The recipe with another detector of the catalogue as its student, where given.

    Clips get the length that detector was published with; all else of the training stays the recipe's.

    Raises:
        RecipeError: no such detector.
    """
    if name is None:
        return recipe
    if name not in DETECTORS:
        raise RecipeError(f"--student {name}: expected a detector of the catalogue: {', '.join(DETECTORS)}")
    training = recipe.student.training
    length = PUBLISHED_CLIPS.get(name, training.clips.length)
    changed = training.model_copy(update={"clips": training.clips.model_copy(update={"length": length})})
    student = recipe.student.model_copy(
        update={"name": name, "variant": name, "detector": DETECTORS[name](), "training": changed}
    )
    return recipe.model_copy(update={"student": student})


def with_init(recipe: Recipe, weights: Path | None, backbone: Path | None) -> Recipe:
    """The recipe with a student that starts from these files, where given.

    Raises:
        RecipeError: the two would fill the same part.
    """
    files = {"weights": weights, "backbone": backbone}
    given = [f"student.training.init.{key}={json.dumps(str(file))}" for key, file in files.items() if file is not None]
    return override(recipe, given) if given else recipe
