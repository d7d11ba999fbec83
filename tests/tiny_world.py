"""A very small synthetic world, for tests that need real files."""

from pathlib import Path

from scenes.synthetic import WorldOptions, write_world

TINY_OPTIONS = WorldOptions(
    train_scenes=2, tune_scenes=1, val_scenes=2, frames_per_scene=4, image_width=112, image_height=63, seed=1
)


def write_tiny_world(path: Path) -> Path:
    """Write the tiny world into ``path``, which may exist if it is empty; returns it."""
    write_world(TINY_OPTIONS, path, workers=1, on_scene=lambda _: None)
    return path
