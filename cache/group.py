"""The Zarr group of a cache: created once, then only read and compared."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cache.durable_files import disk_errors, fsync_directory, write_file
from cache.layout import VALID, CacheLayout, is_safe_name
from cache.remote_file import RemoteFile
from cache.scene_lock import exclusive_lock
from cache.storage import AnyLayout, read_whole
from cache.zarr_documents import FORMAT_NAME, SceneSlot, array_documents, group_document, scenes_sha256, structure
from schemas.errors import CacheError
from schemas.features import StoredArray
from schemas.manifest import FORMAT_VERSION, Manifest


@dataclass(frozen=True)
class CacheGroup:
    """What the group's metadata says.

    Attributes:
        manifest: who made the cache, from what, in which form.
        slots: the scene axis.
    """

    manifest: Manifest
    slots: tuple[SceneSlot, ...]

    @cached_property
    def fingerprint(self) -> str:
        """The manifest's fingerprint, computed once."""
        return self.manifest.fingerprint

    @cached_property
    def arrays(self) -> dict[str, StoredArray]:
        """All stored arrays but ``valid``, by name."""
        return {array.name: array for spec in self.manifest.features for array in spec.stored(self.manifest.tier)}

    @cached_property
    def scene_indices(self) -> dict[str, int]:
        """Scene name to its place on the scene axis."""
        return {slot.name: index for index, slot in enumerate(self.slots)}

    def slot(self, scene_name: str) -> SceneSlot:
        """The place of a scene that is known to have one."""
        return self.slots[self.scene_indices[scene_name]]

    @cached_property
    def step_axis(self) -> int:
        """Size of the step axis: the longest scene."""
        return max(slot.length for slot in self.slots)

    @property
    def compressed(self) -> bool:
        """Whether frames are zstd-compressed."""
        return self.manifest.tier == "archive"


def read_group(layout: AnyLayout) -> CacheGroup:
    """Read and check the group's metadata.

    Raises:
        CacheError: there is no cache, it is another program's, from the future, edited by hand, or not readable.
    """
    path = layout.group_document
    if isinstance(layout.root, Path) and layout.root.exists() and not layout.root.is_dir():
        raise CacheError(f"{layout.root} is a file; a teacher cache is a folder: name one with CACHE=...")
    text = read_whole(path, "opening the cache")
    if text is None:
        raise CacheError(f"there is no teacher cache at {layout.root}: {_where_to_look(layout)}")
    try:
        document = json.loads(text)
    except ValueError as error:
        raise CacheError(f"{path} is not JSON ({error}); expected the metadata of a teacher cache") from error
    attributes = document.get("attributes", {}) if isinstance(document, dict) else {}
    if not isinstance(attributes, dict) or attributes.get("format") != FORMAT_NAME:
        raise CacheError(
            f"{layout.root} holds a Zarr hierarchy of another program (expected the attribute format to be "
            f"{FORMAT_NAME!r}, found {attributes.get('format')!r}); name another folder with CACHE=..."
        )
    _check_version(attributes.get("format_version"), layout)
    group = _parse(attributes, layout)
    _check_structure(document, group, layout)
    return group


def create_group(layout: CacheLayout, group: CacheGroup) -> None:
    """Create the group and its arrays unless another process has just done so. The group's document comes last.

    Raises:
        CacheError: the specs or the scene axis cannot be stored, the folder holds something else, or the disk refuses.
    """
    _check_storable(group)
    _refuse_occupied(layout)
    with disk_errors("creating the cache", layout.root):
        layout.workshop.mkdir(parents=True, exist_ok=True)
        fsync_directory(layout.root.parent)
        with exclusive_lock(layout.creation_lock):
            if layout.group_document.exists():
                return
            _clear_unfinished_creation(layout)
            scratch = layout.workshop / "creation.partial"
            for name, document in array_documents(group.manifest, group.slots).items():
                layout.array_document(name).parent.mkdir()
                write_file(layout.array_document(name), document_bytes(document), scratch)
            layout.receipts.mkdir(exist_ok=True)
            fsync_directory(layout.root)
            write_file(layout.group_document, document_bytes(group_document(group.manifest, group.slots)), scratch)


def _where_to_look(layout: AnyLayout) -> str:
    if isinstance(layout.root, RemoteFile):
        return "expected the address of the folder that holds its zarr.json"
    return (
        f"make one with make cache-teacher CACHE={layout.root} (and the RECIPE=, DATA=, CHECKPOINT= that it is for), "
        "or name the folder of an existing one with CACHE=..."
    )


def document_bytes(document: dict[str, Any]) -> bytes:
    """A ``zarr.json`` as it is written."""
    return json.dumps(document, indent=1, ensure_ascii=False).encode()


def _check_version(version: Any, layout: AnyLayout) -> None:
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CacheError(
            f"{layout.root} has format version {version}; this program reads version {FORMAT_VERSION}. "
            "Update the program, or make a cache of your own with make cache-teacher CACHE=..."
        )
    if version != FORMAT_VERSION:
        raise CacheError(f"{layout.root} states format version {version!r}, expected {FORMAT_VERSION}")


def _parse(attributes: dict[str, Any], layout: AnyLayout) -> CacheGroup:
    try:
        manifest = Manifest.model_validate(attributes["manifest"])
        slots = tuple(SceneSlot(str(s["name"]), str(s["token"]), int(s["length"])) for s in attributes["scenes"])
    except (ValidationError, KeyError, TypeError, ValueError) as error:
        raise CacheError(f"the manifest in {layout.group_document} cannot be understood: {error}") from error
    found = manifest.fingerprint
    if found != attributes.get("fingerprint"):
        raise CacheError(
            f"the manifest in {layout.group_document} was changed by hand: its fingerprint is {found}, "
            f"expected {attributes.get('fingerprint')} as stored beside it. Restore the file from a copy, "
            "or make the cache again in another folder with CACHE=..."
        )
    axis = attributes.get("scenes_sha256", scenes_sha256(slots))  # caches of early writers do not state it
    if axis != scenes_sha256(slots):
        raise CacheError(
            f"the scene axis in {layout.group_document} was changed by hand: its sha256 is {scenes_sha256(slots)}, "
            f"expected {axis} as stored beside it. Restore the file from a copy, "
            "or make the cache again in another folder with CACHE=..."
        )
    group = CacheGroup(manifest, slots)
    _check_storable(group)
    return group


def _check_structure(document: dict[str, Any], group: CacheGroup, layout: AnyLayout) -> None:
    found = document.get("consolidated_metadata", {}).get("metadata", {})
    expected = array_documents(group.manifest, group.slots)
    for name in sorted(expected.keys() | found.keys()):
        ours, theirs = structure(expected.get(name, {})), structure(found.get(name, {}))
        for key in ours:
            if ours[key] != theirs[key]:
                raise CacheError(
                    f"the metadata of array {name} in {layout.group_document} does not follow from the manifest: "
                    f"{key} is {theirs[key]}, expected {ours[key]}. Restore the file from a copy, "
                    "or make the cache again in another folder with CACHE=..."
                )


def _check_storable(group: CacheGroup) -> None:
    """Refuse specs and scene axes that could not be told apart, or could not be file names."""
    if not group.slots or not group.manifest.features:
        raise CacheError(
            f"a cache needs at least one scene and one feature, got {len(group.slots)} scenes "
            f"and {len(group.manifest.features)} features"
        )
    _refuse_twice("scene", [slot.name for slot in group.slots])
    arrays = [array for spec in group.manifest.features for array in spec.stored(group.manifest.tier)]
    _refuse_twice("array", [VALID, *(array.name for array in arrays)])
    for name in [*(slot.name for slot in group.slots), *(array.name for array in arrays)]:
        if not is_safe_name(name) or name in ("receipts", "zarr.json", "frames.parquet", "teacher.safetensors"):
            raise CacheError(
                f"{name!r} cannot name a scene or an array of a cache: expected letters, digits, '.', '_' and '-'"
            )
    for slot in group.slots:
        if slot.length < 1:
            raise CacheError(f"scene {slot.name} has {slot.length} frames, expected at least 1")
    sizes: dict[str, int] = {"scene": len(group.slots), "step": group.step_axis}
    for array in arrays:
        if {"scene", "step"} & set(array.dims):
            raise CacheError(f"array {array.name} names a dimension 'scene' or 'step'; every array has those already")
        for dim, size in zip(array.dims, array.shape, strict=True):
            if sizes.setdefault(dim, size) != size:
                raise CacheError(
                    f"dimension {dim} has size {size} in array {array.name} and {sizes[dim]} in another; "
                    "give them different names in the teacher's feature specs"
                )


def _refuse_twice(kind: str, names: Sequence[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise CacheError(f"{count} {kind}s of the cache are called {name!r}; every {kind} needs a name of its own")


def _refuse_occupied(layout: CacheLayout) -> None:
    """Never write into a folder that holds something of somebody's: an unfinished creation of ours is no such thing."""
    with disk_errors("creating the cache", layout.root):
        if not layout.root.exists():
            return
        ours = layout.workshop.is_dir()
        for entry in sorted(layout.root.iterdir()):
            unfinished = ours and entry.is_dir() and {child.name for child in entry.iterdir()} <= {"zarr.json"}
            if entry != layout.workshop and not unfinished:
                if layout.group_document.exists():
                    return  # another process has just finished creating it
                raise CacheError(
                    f"{layout.root} is not a teacher cache and not empty (it holds {entry.name}): "
                    "name a new or empty folder with CACHE=..."
                )


def _clear_unfinished_creation(layout: CacheLayout) -> None:
    """Remove the array folders of a creation that was killed; they hold no data, because data come later."""
    for entry in sorted(layout.root.iterdir()):
        if entry != layout.workshop:
            layout.array_document(entry.name).unlink(missing_ok=True)
            entry.rmdir()
