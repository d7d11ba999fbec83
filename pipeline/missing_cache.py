"""Make the embedded demo's cache in a process of its own, so that the student's process never sees a teacher."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cache.reading import open_cache
from pipeline.console import console
from pipeline.paths import cache_folder
from pipeline.recipe import Recipe
from schemas.errors import CacheError
from train.distiller_catalogue import needs_cache


def make_missing_cache(
    recipe: Recipe, arguments: Sequence[str], scenes: Sequence[str], path: Path | None = None
) -> None:
    """Run ``cache-teacher`` when the student needs the recipe's own cache, and that lacks scenes or is not there yet.

    Args:
        recipe: with an embedded world; for others nothing is done.
        arguments: of ``cache-teacher``, that make it work on the same recipe.
        scenes: scenes the student will ask for; all of the cache when empty.
        path: where the cache is to be; the recipe's default when None.

    Raises:
        CacheError: the teacher stage failed; it has said why.
        KeyboardInterrupt: Ctrl-C, after the teacher stage has saved what it had.
    """
    where = [] if path is None else ["--cache", str(path)]
    path = path or cache_folder(recipe)
    if recipe.world is None or not needs_cache(recipe.student.training.distillation.names) or _holds(path, scenes):
        return
    console.print(f"No teacher cache at {path} yet: running `make cache-teacher` first.", style="bold", soft_wrap=True)
    if _status_of([sys.executable, "-m", "pipeline", "cache-teacher", *arguments, *where]) != 0:
        raise CacheError(
            "The teacher stage did not finish (its message is above). `make cache-teacher` goes on from there."
        )


def _holds(path: Path, scenes: Sequence[str]) -> bool:
    """Whether the cache has every one of these scenes that it has a place for."""
    try:
        cache = open_cache(path)
    except CacheError:  # absent, or for the teacher stage to explain
        return False
    missing = set(cache.all_scene_names) - set(cache.scene_names)
    return not (missing & set(scenes) if scenes else missing)


def _status_of(command: Sequence[str]) -> int:
    """Exit status of a program that is waited for through Ctrl-C too: it gets the same signal, and saves its work."""
    interrupted = False
    with subprocess.Popen(command) as program:  # noqa: S603 - our own program, with the user's own recipe
        while program.returncode is None:
            try:
                program.wait()
            except KeyboardInterrupt:
                interrupted = True
    if interrupted:
        raise KeyboardInterrupt
    return program.returncode
