"""How many frames a plan is for: as asked, as the tables say, as the recipe's own world will have, or as published."""

import math
from dataclasses import dataclass

from pipeline.dataset import DataChoice, chosen_scenes, chosen_split
from pipeline.recipe import Recipe
from scenes.scene_tables import SceneTables
from scenes.splits import training_split, validation_split
from scenes.synthetic.options import WorldOptions
from schemas.errors import RecipeError

PUBLISHED = {
    ("v1.0-trainval", "train"): (700, 28_130),
    ("v1.0-trainval", "val"): (150, 6_019),
    ("v1.0-test", "test"): (150, 6_008),
    ("v1.0-mini", "mini_train"): (8, 323),
    ("v1.0-mini", "mini_val"): (2, 81),
}
"""Scenes and keyframes by version and split: nuScenes (Caesar et al., CVPR 2020, arXiv:1903.11027), and the devkit's
splits."""

_FRAMES_PER_SCENE = 28_130 / 700  # 20 seconds at 2 Hz


@dataclass(frozen=True)
class FrameCounts:
    """Scenes to be cached.

    Attributes:
        lengths: frames by scene name, in name order; by number where the scenes are not known.
        step_axis: frames of the longest scene of the split.
        counted: where these numbers come from, in words.
    """

    lengths: dict[str, int]
    step_axis: int
    counted: str


def count_frames(recipe: Recipe, choice: DataChoice, tables: SceneTables | None, frames: int | None) -> FrameCounts:
    """The frames a plan is for.

    Args:
        recipe: says the version, and has a world or not.
        choice: data directory, version, split and scenes.
        tables: the data; None where there are none.
        frames: as many, whatever the data say; None for what they say.

    Raises:
        RecipeError: nothing tells how many frames there are.
        DataError: a scene asked for is not in the split.
    """
    if frames is not None:
        return _evenly(max(1, round(frames / _FRAMES_PER_SCENE)), frames, "as asked")
    if tables is not None:
        split = chosen_split(tables, choice)
        lengths = {name: tables.scene_length(name) for name in chosen_scenes(tables, split, choice.scenes)}
        step_axis = max((tables.scene_length(name) for name in tables.scene_names(split)), default=0)
        return FrameCounts(lengths, step_axis, f"counted: {split} in {tables.data_root}")
    version = choice.version or recipe.version
    split = choice.split or training_split(version)
    known = PUBLISHED if recipe.world is None else _of_world(recipe.world, version)
    if (version, split) not in known or choice.scenes:
        asked = f"single scenes of {version}/{split}" if choice.scenes else f"{version}/{split}"
        raise RecipeError(
            f"Nothing tells how many frames {asked} has: without tables only {', '.join(map('/'.join, known))} are "
            "known. Name the data directory with DATA=..., or a number of frames with ARGS='--frames 28130'."
        )
    source = f"published: {split} of {version}" if recipe.world is None else "the recipe's world, to be made"
    return _evenly(*known[version, split], source)


def _of_world(world: WorldOptions, version: str) -> dict[tuple[str, str], tuple[int, int]]:
    sizes = {training_split(version): world.train_scenes, validation_split(version): world.val_scenes}
    return {(version, split): (size, size * world.frames_per_scene) for split, size in sizes.items() if size > 0}


def _evenly(scenes: int, frames: int, counted: str) -> FrameCounts:
    """Scenes of nearly one length, under names that no scene has."""
    longer = frames - scenes * (frames // scenes)
    lengths = {f"#{number + 1}": frames // scenes + (number < longer) for number in range(scenes)}
    return FrameCounts(lengths, math.ceil(frames / scenes), counted)
