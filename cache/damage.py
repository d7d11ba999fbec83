"""Damage: the error a reader raises at the first one, and the findings that ``verify`` collects."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cache.remote_file import RemoteFile
from schemas.errors import CacheError

Remedy = Literal["drop scene", "rebuild", "remove", "mend permissions", "restore", "sweep", "none"]
"""What becomes of a finding.

==================  ====================================================================================
drop scene          repair-cache drops the scene, the next cache-teacher makes it again
rebuild             repair-cache makes the file again from files that are sound
remove              repair-cache removes the file; where it is needed, cache-teacher writes it again
mend permissions    nobody may read the file, so nothing is known about it; repair-cache leaves it alone
restore             the file has to come from a copy of the cache; repair-cache leaves it alone
sweep               harmless remains of a killed writer; repair-cache removes them
none                harmless file of somebody else; repair-cache leaves it alone
==================  ====================================================================================
"""


class DamageError(CacheError):
    """A file of the cache is not what it should be; the message says how to mend the cache.

    Attributes:
        what: expected and found, in words.
    """

    def __init__(self, message: str, what: str = "") -> None:
        """Made from its message, like every error: it can be raised again with more words, and crosses processes."""
        super().__init__(message)
        self.what = what


@dataclass(frozen=True)
class Damage:
    """One thing that is not as it should be.

    Attributes:
        scene_name: the scene concerned, if it is one scene's.
        array_name: the array concerned, if it is one array's.
        step: the frame concerned, if it is one frame's.
        what: expected and found, in words.
        path: the file.
        remedy: what becomes of it.
    """

    scene_name: str | None
    array_name: str | None
    step: int | None
    what: str
    path: Path
    remedy: Remedy

    @property
    def harmless(self) -> bool:
        """Whether no reader, ours or plain Zarr, is any the worse for it."""
        return self.remedy in ("sweep", "none")


def damaged(scene_name: str, what: str, path: Path | RemoteFile) -> DamageError:
    """An error that names the damage and says how to make the scene again.

    Args:
        scene_name: the scene concerned.
        what: array, step, expected and found, in words.
        path: the damaged file: a receipt, or a shard in its array's folder.
    """
    return damaged_file(f"scene {scene_name}", what, path, path.parent.parent)


def damaged_file(whose: str, what: str, path: Path | RemoteFile, root: Path | RemoteFile) -> DamageError:
    """An error that names a damaged file and says how to mend the cache.

    Args:
        whose: what the file belongs to, in words.
        what: expected and found, in words.
        path: the file.
        root: the cache folder.
    """
    return DamageError(f"the cache is damaged: {whose}, {what} ({path}). {how_to_repair(root)}", what)


def how_to_repair(root: Path | RemoteFile) -> str:
    """The commands that mend a damaged cache.

    Args:
        root: the cache folder.
    """
    if isinstance(root, RemoteFile):
        return "Verify and repair the cache where it was made (make verify-cache), then copy it here again"
    return (
        f"Drop what is damaged with make repair-cache CACHE={root}, "
        "then repeat the make cache-teacher command that filled the cache, which makes just that again"
    )
