"""``make repair-cache``: drop exactly what is damaged, so that ``make cache-teacher`` makes exactly that again."""

from pathlib import Path

from cache.repair import repair
from pipeline.console import Tracker, console
from pipeline.damage_table import print_damages
from pipeline.verify_cache import checked


def repair_cache(cache_path: Path) -> int:
    """Check a whole cache, drop its damaged scenes and make derived files again.

    Args:
        cache_path: the cache.

    Returns:
        How many scenes were dropped.

    Raises:
        CacheError: there is no cache, its group cannot be trusted, or the disk refuses.
    """
    found = checked("repair-cache: checking", cache_path)
    if not found.damages:
        console.print("Nothing to mend: every file and every frame is as its receipt says.")
        return 0
    print_damages(cache_path, found.damages)
    scenes = {damage.scene_name for damage in found.damages if damage.scene_name is not None}
    with Tracker("repair-cache: mending", len(scenes), "scenes") as tracker:
        done = repair(cache_path, found, lambda name: tracker.advance(note=name))
    for name in done.dropped:
        console.print(f"dropped: {name}")
    for path in dict.fromkeys(damage.path for damage in done.mended if damage.remedy != "sweep"):
        console.print(f"mended: {path}", soft_wrap=True)
    for scene in dict.fromkeys(damage.scene_name for damage in done.mended if damage.remedy == "sweep"):
        console.print(f"remains removed: {scene}")
    for path in dict.fromkeys(damage.path for damage in done.left):
        console.print(f"left as it is: {path}", soft_wrap=True)
    if done.dropped or any(damage.remedy == "remove" for damage in done.mended):
        console.print(
            f"To make what was dropped again: make cache-teacher CACHE={cache_path} "
            "(with the options that filled the cache)",
            soft_wrap=True,
        )
    return len(done.dropped)
