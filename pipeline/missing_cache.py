"""Make the embedded demo's cache in a process of its own, so that the student's process never sees a teacher."""

import subprocess
import sys
from collections.abc import Sequence

from pipeline.console import console
from pipeline.paths import cache_folder
from pipeline.recipe import Recipe
from schemas.errors import CacheError


def make_missing_cache(recipe: Recipe, recipe_name: str, assignments: Sequence[str]) -> None:
    """Run ``cache-teacher`` when the recipe has an embedded world and no cache yet.

    Raises:
        CacheError: the teacher stage failed; it has said why.
    """
    path = cache_folder(recipe)
    if recipe.world is None or path.exists():
        return
    console.print(f"No teacher cache at {path} yet: running `make cache-teacher` first.", style="bold", soft_wrap=True)
    command = [sys.executable, "-m", "pipeline", "cache-teacher", "--recipe", recipe_name]
    command += [part for assignment in assignments for part in ("--set", assignment)]
    if subprocess.run(command, check=False).returncode != 0:  # noqa: S603 - our own program, with the user's own recipe
        raise CacheError(
            "The teacher stage did not finish (its message is above). `make cache-teacher` goes on from there."
        )
