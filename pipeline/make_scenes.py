"""``make make-scenes``: write the synthetic driving world in genuine nuScenes v1.0 form."""

import os
from pathlib import Path

from pipeline.console import Tracker, console
from scenes.synthetic.options import WorldOptions
from scenes.synthetic.write import is_world, write_world


def make_scenes(options: WorldOptions, data_root: Path) -> None:
    """Write the world unless it is there already.

    Args:
        options: what the world is like.
        data_root: the folder to make; it is complete or absent, never half-written.

    Raises:
        DataError: the folder holds something else.
    """
    if is_world(data_root, options):
        return
    scenes = options.train_scenes + options.tune_scenes + options.val_scenes
    console.print(f"Writing a synthetic world of {scenes} scenes to {data_root}", style="bold", soft_wrap=True)
    with Tracker("make-scenes", scenes, "scenes") as tracker:
        write_world(options, data_root, workers=os.cpu_count() or 1, on_scene=lambda name: tracker.advance(note=name))
