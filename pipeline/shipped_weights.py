"""Weights that come with the program, and the record of what they were trained on.

``weights/<name>.safetensors`` holds them; ``weights/<name>.json`` beside it tells recipe, seed, scores and the version
of the world's generator. They are used only where all of that still holds: weights of another world would run, and
quietly teach nonsense.
"""

import json
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.paths import teacher_folder, teacher_weights
from pipeline.recipe import Recipe, TeacherRecipe
from scenes.score import Score
from scenes.synthetic.options import GENERATOR_VERSION, WorldOptions
from scenes.whole_file import whole_file
from schemas.errors import CheckpointError
from schemas.manifest import differing_fields

FOLDER = Path(__file__).parent / "weights"
DEMO_TEACHER = "demo-teacher"
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

    def differences(self, recipe: Recipe) -> list[str]:
        """What the recipe has otherwise than these weights were trained with: one line each, none when they fit.

        Raises:
            CheckpointError: the record is of another program, or damaged.
        """
        if recipe.world is None:
            return ["the recipe has no synthetic world"]
        try:
            teacher = TeacherRecipe.model_validate(self.record["teacher"])
            world = WorldOptions.model_validate(self.record["world"])
            generator = self.record["generator_version"]
        except (KeyError, ValidationError) as error:
            raise CheckpointError(f"{self.path.with_suffix('.json')} does not describe weights: {error}") from error
        ours = {
            "teacher": _numbers_of(recipe.teacher),
            "world": _scenes_of(recipe.world),
            "generator": GENERATOR_VERSION,
        }
        theirs = {"teacher": _numbers_of(teacher), "world": _scenes_of(world), "generator": generator}
        return [f"{name}: {mine} here, {wrote} there" for name, mine, wrote in differing_fields(ours, theirs)]


def shipped(name: str, folder: Path = FOLDER) -> ShippedWeights | None:
    """The weights of that name; None where the program comes without them.

    Raises:
        CheckpointError: only one of the two files is there, the record is no JSON, or the weights are not the recorded
            ones.
    """
    weights, record = folder / f"{name}.safetensors", folder / f"{name}.json"
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
    found = shipped(DEMO_TEACHER)
    return found.path if found is not None and not found.differences(recipe) else None


def ship(name: str, recipe: Recipe, weights: Path, scores: dict[str, Score], folder: Path = FOLDER) -> ShippedWeights:
    """Keep weights with the program.

    Args:
        name: of the two files.
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
        "trained_with": "make demo-teacher",
        "teacher": recipe.teacher.model_dump(mode="json"),
        "world": recipe.world.model_dump(mode="json"),
        "generator_version": GENERATOR_VERSION,
        "program_version": version("bev-teacher-cache"),
        "scores": {split: _headline(score) for split, score in scores.items()},
        "file_sha256": sha256(content).hexdigest(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / f"{name}.safetensors") as file:
        file.write(content)
    with whole_file(folder / f"{name}.json") as file:
        file.write((json.dumps(record, indent=2) + "\n").encode())
    return ShippedWeights(folder / f"{name}.safetensors", record)


def _headline(score: Score) -> dict[str, float | int]:
    return {"samples": score.samples, "nds": score.nds, "mean_ap": score.mean_ap, **score.tp_errors}


def _numbers_of(teacher: TeacherRecipe) -> dict[str, Any]:
    """Of a teacher's recipe what its weights depend on."""
    training = teacher.training
    return {
        "detector": teacher.detector.model_dump(mode="json"),
        "training": None if training is None else training.what_changes_numbers(),
    }


def _scenes_of(world: WorldOptions) -> dict[str, Any]:
    return world.model_dump(mode="json", exclude=SCENE_COUNTS)
