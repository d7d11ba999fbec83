"""Weights that come with the program, and the record of what they were trained on.

``detectors/shipped_weights/<name>.safetensors`` holds them; ``<name>.json`` beside it tells recipe, seed, scores and
the version of the world's generator. They are used only where that still holds: weights of another world would run, and
quietly teach nonsense. There are two: the demo's teacher, and a detector that never saw a teacher, which the demo's
students start from.
"""

import json
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from detectors.shipped import FOLDER, PREFIX, shipped_file
from pipeline.paths import teacher_folder, teacher_weights
from pipeline.recipe import Recipe, TeacherRecipe
from scenes.score import Score
from scenes.synthetic.options import GENERATOR_VERSION, WorldOptions
from scenes.whole_file import whole_file
from schemas.errors import CheckpointError, RecipeError
from schemas.manifest import differing_fields

SCENE_COUNTS = {"train_scenes", "tune_scenes", "val_scenes"}
"""A scene depends on its name alone, so a world of fewer or more scenes is the same world."""


@dataclass(frozen=True)
class ShippedWeights:
    """Weights and what they belong to.

    Attributes:
        path: the safetensors file.
        record: what was written beside it.
    """

    path: Path
    record: dict[str, Any]

    def differences(self, world: WorldOptions | None, teacher: TeacherRecipe | None = None) -> list[str]:
        """What is otherwise than when these weights were trained: one line each, none where they fit.

        Args:
            world: the recipe's.
            teacher: whose weights they shall be; None for weights to start from, which may come from other scenes of a
                world that looks the same.

        Raises:
            CheckpointError: the record is of another program, or damaged.
        """
        if world is None:
            return ["the recipe has no synthetic world"]
        try:
            trained = TeacherRecipe.model_validate(self.record["teacher"])
            there = WorldOptions.model_validate(self.record["world"])
            generator = self.record["generator_version"]
        except (KeyError, ValidationError) as error:
            raise CheckpointError(f"{self.path.with_suffix('.json')} does not describe weights: {error}") from error
        ours: dict[str, Any] = {"world": _look_of(world), "generator": GENERATOR_VERSION}
        theirs: dict[str, Any] = {"world": _look_of(there), "generator": generator}
        if teacher is not None:
            ours |= {"world": _scenes_of(world), "teacher": _numbers_of(teacher)}
            theirs |= {"world": _scenes_of(there), "teacher": _numbers_of(trained)}
        return [f"{name}: {mine} here, {wrote} there" for name, mine, wrote in differing_fields(ours, theirs)]


def shipped(name: str, folder: Path = FOLDER) -> ShippedWeights | None:
    """The weights of that name; None where the program comes without them.

    Raises:
        CheckpointError: only one of the two files is there, the record is no JSON, or the weights are not the recorded
            ones.
    """
    weights = shipped_file(name, folder)
    record = weights.with_suffix(".json")
    if not weights.exists() and not record.exists():
        return None
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        digest = sha256(weights.read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"The shipped weights {weights} cannot be used: {error}. Install the program anew."
        ) from error
    if not isinstance(content, dict) or content.get("file_sha256") != digest:
        raise CheckpointError(
            f"{weights} has the SHA-256 {digest}, its record {record.name} expects another: one of them was exchanged. "
            "Install the program anew, or train: make demo-teacher"
        )
    return ShippedWeights(weights, content)


def finished_teacher(recipe: Recipe) -> Path | None:
    """Weights of a teacher that the recipe trains itself: trained here, or shipped and fitting; None where neither is.

    Raises:
        CheckpointError: the shipped files are damaged.
    """
    if recipe.teacher.training is None or recipe.teacher.file is not None:
        return None
    trained_here = teacher_weights(teacher_folder(recipe))
    if trained_here.exists():
        return trained_here
    found = shipped(recipe.teacher.name)
    return found.path if found is not None and not found.differences(recipe.world, recipe.teacher) else None


def check_start(start: str | None, world: WorldOptions | None) -> None:
    """Refuse a run that would start from shipped weights of another world.

    Args:
        start: the file that it starts from, as the recipe names it.
        world: the recipe's.

    Raises:
        RecipeError: the world differs; each difference is named.
        CheckpointError: there are no such weights, or they are damaged.
    """
    if start is None or not start.startswith(PREFIX):
        return
    found = shipped(start.removeprefix(PREFIX))
    if found is None:
        return  # the run itself says which file is missing
    differing = found.differences(world)
    if differing:
        raise RecipeError(
            f"the run shall start from {start}, weights that were trained on another world: "
            f"{'; '.join(differing)}. Start from random weights with --set student.training.init.weights=null, or "
            "from a file of yours with --init FILE"
        )


def ship(recipe: Recipe, weights: Path, scores: dict[str, Score], folder: Path = FOLDER) -> ShippedWeights:
    """Keep weights with the program, under the name of the recipe's teacher.

    Args:
        recipe: whose teacher these are.
        weights: a safetensors file.
        scores: official scores by split.
        folder: where to.

    Returns:
        What ``shipped`` will find.
    """
    assert recipe.world is not None
    content = weights.read_bytes()
    record = {
        "trained_with": f"make demo-teacher RECIPE={recipe.name}",
        "teacher": recipe.teacher.model_dump(mode="json"),
        "world": recipe.world.model_dump(mode="json"),
        "generator_version": GENERATOR_VERSION,
        "program_version": version("bev-teacher-cache"),
        "scores": {split: _headline(score) for split, score in scores.items()},
        "file_sha256": sha256(content).hexdigest(),
    }
    kept = shipped_file(recipe.teacher.name, folder)
    with whole_file(kept) as file:
        file.write(content)
    with whole_file(kept.with_suffix(".json")) as file:
        file.write((json.dumps(record, indent=2) + "\n").encode())
    return ShippedWeights(kept, record)


def _headline(score: Score) -> dict[str, float | int]:
    return {"samples": score.samples, "nds": score.nds, "mean_ap": score.mean_ap, **score.tp_errors}


def _numbers_of(teacher: TeacherRecipe) -> dict[str, Any]:
    """Of a teacher's recipe what its weights depend on."""
    training = teacher.training
    return {
        "detector": teacher.detector.model_dump(mode="json"),
        "training": None if training is None else training.what_changes_numbers(),
    }


def _look_of(world: WorldOptions) -> dict[str, Any]:
    return world.model_dump(mode="json", include={"image_width", "image_height"})


def _scenes_of(world: WorldOptions) -> dict[str, Any]:
    return world.model_dump(mode="json", exclude=SCENE_COUNTS)
