"""Which frames a program works on: the user's nuScenes directory, or the embedded world, made when missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.make_scenes import make_scenes
from pipeline.paths import INDEX_FOLDER, WORLD_FOLDER
from pipeline.recipe import Recipe
from scenes.scene_tables import SceneTables
from scenes.splits import training_split
from scenes.tables import load_tables
from schemas.errors import DataError, RecipeError


@dataclass(frozen=True)
class DataChoice:
    """What the command line said about the data; None means the recipe's default.

    Attributes:
        data: the nuScenes directory.
        version: e.g. ``v1.0-mini``.
        split: e.g. ``mini_train``.
        scenes: names of the scenes to work on; all of the split when empty.
    """

    data: Path | None = None
    version: str | None = None
    split: str | None = None
    scenes: tuple[str, ...] = ()


def open_data(recipe: Recipe, choice: DataChoice) -> SceneTables:
    """Open the chosen data; the embedded world is written first when it is the choice and is missing.

    Raises:
        RecipeError: the recipe has no embedded world and no data directory was given.
        DataError: the directory is not nuScenes.
    """
    version = choice.version or recipe.version
    if choice.data is not None:
        return load_tables(choice.data, version, INDEX_FOLDER)
    if recipe.world is None:
        raise RecipeError(
            f"Recipe {recipe.name!r} needs nuScenes: give its directory with DATA=/path/to/nuscenes (the folder that "
            f"holds {version}/ and samples/), and VERSION=v1.0-mini for the mini set."
        )
    make_scenes(recipe.world, WORLD_FOLDER)
    return load_tables(WORLD_FOLDER, version, INDEX_FOLDER)


def chosen_split(tables: SceneTables, choice: DataChoice) -> str:
    """The split asked for, or the training split of the version."""
    return choice.split or training_split(tables.version)


def chosen_scenes(tables: SceneTables, split: str, asked: Sequence[str]) -> tuple[str, ...]:
    """Names of the scenes to work on, in name order.

    Raises:
        DataError: a scene asked for is not in the split.
    """
    available = tables.scene_names(split)
    unknown = sorted(set(asked) - set(available))
    if unknown:
        raise DataError(
            f"--scenes: {', '.join(unknown)} not in split {split!r} of {tables.version} at {tables.data_root}. "
            f"It has {len(available)} scenes, from {available[0]} to {available[-1]}."
        )
    return tuple(name for name in available if not asked or name in asked)
