"""The one error for a cache file that is not what its receipt says."""

from pathlib import Path

from schemas.errors import CacheError


def damaged(scene_name: str, what: str, path: Path) -> CacheError:
    """An error that names the damage and says how to make the scene again.

    Args:
        scene_name: the scene concerned.
        what: array, step, expected and found, in words.
        path: the damaged file.
    """
    return CacheError(
        f"the cache is damaged: scene {scene_name}, {what} ({path}). To make this scene again, remove "
        f"receipts/{scene_name}.parquet from the cache and repeat the make cache-teacher command that filled it"
    )
