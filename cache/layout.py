"""Names and places of everything inside a cache folder. ``docs/format.md`` draws the tree."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from typing_extensions import TypeVar

from cache.remote_file import RemoteFile

Place = TypeVar("Place", Path, RemoteFile, default=Path)
"""Readers take a cache wherever it is; a writer's is a local folder."""

VALID = "valid"
"""The one array that no feature owns: (scene, step) uint8, 1 where a frame is cached."""

_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def is_safe_name(name: str) -> bool:
    """Whether a scene or array name may become a file name as it stands."""
    return _SAFE_NAME.fullmatch(name) is not None


def shard_key(scene_index: int, rank: int) -> str:
    """Path of a shard relative to the cache: the Zarr chunk key of one scene of a rank-dimensional array.

    The separator is a dot, so an array's shards lie side by side in one folder and one fsync makes their names durable.
    """
    return ".".join(["c", str(scene_index), *["0"] * (rank - 1)])


@dataclass(frozen=True)
class CacheLayout(Generic[Place]):
    """Paths inside one cache folder.

    Attributes:
        root: the cache folder, which is the Zarr group.
    """

    root: Place

    @property
    def group_document(self) -> Place:
        """Metadata of the Zarr group, written last when a cache is created: a cache exists when this file does."""
        return self.root / "zarr.json"

    def array_document(self, array_name: str) -> Place:
        """Metadata of one Zarr array."""
        return self.root / array_name / "zarr.json"

    def shard(self, array_name: str, scene_index: int, rank: int) -> Place:
        """The file of one scene of one array."""
        return self.root / array_name / shard_key(scene_index, rank)

    def valid_chunk(self, scene_index: int) -> Place:
        """The file of one scene of ``valid``."""
        return self.root / VALID / shard_key(scene_index, 2)

    @property
    def receipts(self) -> Place:
        """Folder of receipts, one file per finished scene."""
        return self.root / "receipts"

    def receipt(self, scene_name: str) -> Place:
        """The file whose existence makes a scene exist."""
        return self.receipts / f"{scene_name}.parquet"

    @property
    def frames(self) -> Place:
        """The rows of all receipts in one file; derived, replaced as a whole."""
        return self.root / "frames.parquet"

    @property
    def parameters(self) -> Place:
        """Teacher parameters that a student may inherit."""
        return self.root / "teacher.safetensors"

    @property
    def fidelity(self) -> Place:
        """How far the cached numbers were from the teacher's floats when the cache was filled."""
        return self.root / "fidelity.json"

    @property
    def recipe(self) -> Place:
        """What the program was asked to make, for people and for making it again; no reader of the store needs it."""
        return self.root / "recipe.yaml"

    @property
    def workshop(self) -> Place:
        """Locks and unfinished files of writers. Readers never look inside; a copy of a cache can leave it out."""
        return self.root / ".writers"

    @property
    def partial(self) -> Place:
        """One folder per scene in flight."""
        return self.workshop / "partial"

    @property
    def creation_lock(self) -> Place:
        """Held while the cache is created."""
        return self.workshop / "creation.lock"

    @property
    def index_lock(self) -> Place:
        """Held while ``frames.parquet``, ``teacher.safetensors`` or ``fidelity.json`` is replaced."""
        return self.workshop / "index.lock"

    def scene_lock(self, scene_name: str) -> Place:
        """Held while a scene's files take their places."""
        return self.workshop / "scenes" / f"{scene_name}.lock"
