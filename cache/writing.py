"""The writer of a cache: creates it or adds to it, one scene at a time, in as many processes as one likes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from cache.durable_files import disk_errors, fsync_directory, write_file
from cache.fidelity_file import write_fidelity
from cache.frame_index_file import add_to_frames
from cache.group import CacheGroup, create_group, read_group
from cache.layout import CacheLayout
from cache.manifest_check import refuse_other_manifest
from cache.parameters_file import write_parameters
from cache.receipts import listed_receipts
from cache.remote_file import remote_root
from cache.scene_lock import exclusive_lock, sweep
from cache.scene_writer import SceneWriter
from cache.zarr_documents import SceneSlot
from schemas.errors import CacheError
from schemas.fidelity import Fidelity
from schemas.manifest import Manifest

__all__ = ["CacheWriter", "SceneSlot", "SceneWriter", "open_for_writing"]


class CacheWriter:
    """An open cache to which scenes can be added.

    Attributes:
        path: the cache folder.
        manifest: as stored.
    """

    def __init__(self, layout: CacheLayout, group: CacheGroup, made_with: Mapping[str, str]) -> None:
        self.path = layout.root
        self.manifest = group.manifest
        self._layout = layout
        self._group = group
        self._made_with = dict(made_with)

    def committed(self) -> frozenset[str]:
        """Names of the scenes that are finished at this moment, whoever finished them."""
        return frozenset(listed_receipts(self._layout, self._group))

    def scene(self, name: str) -> SceneWriter:
        """A writer for one scene, to be used in a ``with`` statement.

        A scene that another process finishes meanwhile, or has finished, stays as it is: ``commit`` then says so.

        Raises:
            CacheError: the scene has no place in this cache.
        """
        if name not in self._group.scene_indices:
            split = self.manifest.dataset.split
            raise CacheError(
                f"scene {name} has no place in the cache {self.path}, which was made for the {len(self._group.slots)} "
                f"scenes of split {split}; name its own cache with CACHE=..."
            )
        return SceneWriter(self._layout, self._group, self._group.slot(name), self._made_with)

    def write_parameters(self, named: Mapping[str, NDArray[Any]]) -> None:
        """Store the teacher's parameters that a student may inherit, as ``teacher.safetensors``."""
        write_parameters(self._layout, self._group, named)

    def write_fidelity(self, fidelity: Fidelity) -> None:
        """Store how far the cached numbers are from the teacher's floats, as ``fidelity.json``."""
        write_fidelity(self._layout, self._group, fidelity)

    def write_recipe(self, yaml_text: str) -> None:
        """Store what the cache was made by, as ``recipe.yaml``; a writer that is killed leaves no remains of it."""
        path = self._layout.recipe
        with disk_errors("writing the recipe", path), exclusive_lock(self._layout.index_lock):
            write_file(path, yaml_text.encode(), self._layout.workshop / "recipe.partial")


def open_for_writing(
    path: Path, manifest: Manifest, scenes: Sequence[SceneSlot], made_with: Mapping[str, str] = MappingProxyType({})
) -> CacheWriter:
    """Create a cache, or open one to add to it; then sweep what dead writers left.

    Args:
        path: the cache folder; made when absent.
        manifest: what the scenes to be written are made with.
        scenes: the whole scene axis (all scenes of the split), in its final order.
        made_with: what each receipt shall record of how its scene was made (program version, device, threads, ...):
            kept for people to compare, and free to differ from scene to scene.

    Raises:
        CacheError: the folder holds something else, or a cache with another manifest or scene axis: every differing
            field is told with both values; or the disk refuses.
    """
    remote = remote_root(path)
    if remote is not None:
        raise CacheError(
            f"{remote}: a cache is written to a local folder (or a mounted one), whose files can be made durable. "
            "Choose one with CACHE=..., then copy it to where it shall be read from"
        )
    layout = CacheLayout(path)
    with disk_errors("opening the cache", path):
        absent = not layout.group_document.exists()
    if absent:
        create_group(layout, CacheGroup(manifest, tuple(scenes)))
    group = read_group(layout)
    remedy = f"Give the new features a cache of their own: make cache-teacher CACHE={path}-2"
    if not layout.receipts.is_dir() or not listed_receipts(layout, group):
        remedy += f". It holds no scene yet: unless somebody is filling it, {path} may as well be removed"
    refuse_other_manifest(path, manifest, group.manifest, remedy)
    _refuse_other_scenes(path, tuple(scenes), group.slots)
    with disk_errors("opening the cache", path):
        for folder in (layout.workshop, layout.receipts):
            if not folder.is_dir():  # a copy may come without them: some programs leave out empty folders
                folder.mkdir(exist_ok=True)
                fsync_directory(path)
        sweep(layout.partial)
    add_to_frames(layout, group, ())
    return CacheWriter(layout, group, made_with)


def _refuse_other_scenes(path: Path, ours: tuple[SceneSlot, ...], theirs: tuple[SceneSlot, ...]) -> None:
    if ours == theirs:
        return
    for index in range(max(len(ours), len(theirs))):
        our_slot = ours[index] if index < len(ours) else None
        their_slot = theirs[index] if index < len(theirs) else None
        if our_slot != their_slot:
            break
    raise CacheError(
        f"the cache {path} has another scene axis: {len(theirs)} scenes in the cache, {len(ours)} now; they first "
        f"differ at place {index}: {their_slot} in the cache, {our_slot} now. The axis is the whole split, whatever "
        f"--scenes says; give the new scenes a cache of their own: make cache-teacher CACHE={path}-2"
    )
