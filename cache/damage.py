"""The one error for a cache file that is not what its receipt says."""

from pathlib import Path

from schemas.errors import CacheError


def damaged(scene_name: str, what: str, path: Path) -> CacheError:
    """An error that names the damage and says how to make the scene again.

    Args:
        scene_name: the scene concerned.
        what: array, step, expected and found, in words.
        path: the damaged file: a receipt, or a shard in its array's folder.
    """
    return CacheError(f"the cache is damaged: scene {scene_name}, {what} ({path}). {how_to_repair(path.parent.parent)}")


def how_to_repair(root: Path) -> str:
    """The commands that mend a damaged cache.

    Args:
        root: the cache folder.
    """
    return (
        f"Drop what is damaged with make repair-cache CACHE={root}, "
        "then repeat the make cache-teacher command that filled the cache, which makes just that again"
    )
