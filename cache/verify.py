"""``verify``: every promise of a cache checked against the disk, to the last byte, never stopping at a fault."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.damage import Damage, DamageError
from cache.durable_files import disk_errors
from cache.fidelity_file import read_fidelity
from cache.frame_index_file import index_fault
from cache.group import CacheGroup, read_group
from cache.layout import CacheLayout
from cache.parameters_file import read_parameters
from cache.receipts import Receipt
from cache.remote_file import remote_root
from cache.scene_check import check_scene, remedy_of_refusal
from cache.zarr_documents import array_documents
from schemas.errors import CacheError, DiskError

_MEANING = ("dequantise", "_FillValue")
"""The attributes of an array that decide what its numbers mean."""


@dataclass(frozen=True)
class Verification:
    """What a verification found.

    Attributes:
        path: the cache folder.
        damages: everything that is not as it should be, scene by scene, then what belongs to no scene.
        made_with: of every scene with a readable receipt, how it was made, as its writer told it.
        frames: frames looked at.
        checked_bytes: bytes of shards that the receipts name.
    """

    path: Path
    damages: tuple[Damage, ...]
    made_with: Mapping[str, Mapping[str, str]]
    frames: int
    checked_bytes: int

    @property
    def harmful(self) -> tuple[Damage, ...]:
        """What somebody should do something about."""
        return tuple(damage for damage in self.damages if not damage.harmless)

    @property
    def broken_scenes(self) -> tuple[str, ...]:
        """The scenes that have to be dropped and made again, in the order of the scene axis."""
        names = [damage.scene_name for damage in self.damages if damage.remedy == "drop scene"]
        return tuple(dict.fromkeys(name for name in names if name is not None))


def scenes_of(path: Path) -> tuple[str, ...]:
    """Names of all scenes that have a place in a cache, made or not: ``verify`` looks at each of them.

    Raises:
        CacheError: as ``verify``.
    """
    return tuple(slot.name for slot in read_group(local_layout(path)).slots)


def verify(path: Path, on_scene: Callable[[str], None]) -> Verification:
    """Check a whole cache; readers and writers may go on with it meanwhile. Nothing is written.

    Every shard is read once, one frame of one array at a time.

    Args:
        path: the cache folder.
        on_scene: called with the name of each scene of the axis once it is checked.

    Raises:
        CacheError: there is no cache, or its group is another program's, from the future, changed by hand or damaged:
            then nothing in the folder can be judged.
        DiskError: a folder cannot be listed.
    """
    layout = local_layout(path)
    group = read_group(layout)
    damages: list[Damage] = []
    receipts: dict[str, Receipt] = {}
    with disk_errors("verifying the cache", path):
        for slot in group.slots:
            check = check_scene(layout, group, slot.name)
            damages.extend(check.damages)
            if check.receipt is not None:
                receipts[slot.name] = check.receipt
            on_scene(slot.name)
        damages.extend(_group_damages(layout, group))
        damages.extend(_foreign_files(layout, group))
        damages.extend(_index_damages(layout, group, receipts))
        damages.extend(_extra_damages(layout, group))
    return Verification(
        path=path,
        damages=tuple(damages),
        made_with={name: receipt.made_with for name, receipt in receipts.items()},
        frames=sum(receipt.rows.num_rows for receipt in receipts.values()),
        checked_bytes=sum(shard.file_bytes for receipt in receipts.values() for shard in receipt.shards.values()),
    )


def local_layout(path: Path) -> CacheLayout:
    """The paths of a cache on this machine.

    Raises:
        CacheError: it is on another.
    """
    remote = remote_root(path)
    if remote is not None:
        raise CacheError(
            f"{remote}: a cache is verified and repaired in a local folder (or a mounted one): "
            "name one with CACHE=..., on the machine that holds it"
        )
    return CacheLayout(path)


def _group_damages(layout: CacheLayout, group: CacheGroup) -> Iterator[Damage]:
    """The arrays' own documents against the group's, and what the group's says about dequantising."""
    consolidated = json.loads(layout.group_document.read_bytes())["consolidated_metadata"]["metadata"]
    for name, expected in array_documents(group.manifest, group.slots).items():
        edited = [key for key in _MEANING if _attribute(consolidated[name], key) != _attribute(expected, key)]
        for key in edited:
            found, ours = _attribute(consolidated[name], key), _attribute(expected, key)
            what = f"its attribute {key} in the group's metadata is {found}, expected {ours}"
            yield Damage(None, name, None, what, layout.group_document, "restore")
        fault = _document_fault(layout.array_document(name), consolidated[name])
        if fault is not None and not edited:  # what was edited must not spread from the one file to the other
            yield Damage(None, name, None, fault, layout.array_document(name), "rebuild")


def _attribute(document: dict[str, Any], key: str) -> object:
    return document.get("attributes", {}).get(key)


def _document_fault(path: Path, expected: dict[str, Any]) -> str | None:
    try:
        return None if json.loads(path.read_bytes()) == expected else "the array's metadata differs from the group's"
    except FileNotFoundError:
        return "the array's metadata is missing"
    except (OSError, ValueError) as error:
        return f"the array's metadata cannot be read: {error}"


def _foreign_files(layout: CacheLayout, group: CacheGroup) -> Iterator[Damage]:
    """Files that no scene of this cache owns, in the folders of receipts and arrays; hidden ones are nobody's business.

    A receipt without a place is more than foreign: nobody can tell how many scenes such a cache has.
    """
    for path in _visible(layout.receipts):
        if path.suffix != ".parquet":
            yield Damage(None, None, None, "no file of this cache", path, "none")
        elif path.stem not in group.scene_indices:
            yield Damage(None, None, None, "a receipt for a scene that has no place here", path, "remove")
    for name, document in array_documents(group.manifest, group.slots).items():
        rank = len(document["shape"])
        owned = {layout.shard(name, index, rank).name for index in range(len(group.slots))} | {"zarr.json"}
        for path in _visible(layout.array_document(name).parent):
            if path.name not in owned:
                yield Damage(None, name, None, "no file of this cache", path, "none")


def _visible(folder: Path) -> list[Path]:
    if not folder.exists():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _index_damages(layout: CacheLayout, group: CacheGroup, receipts: Mapping[str, Receipt]) -> Iterator[Damage]:
    """Its absence is none, and neither is a scene that it lacks or has too much: readers then take the receipts."""
    try:
        fault = index_fault(layout, group, receipts)
    except DiskError as error:
        yield Damage(None, None, None, str(error), layout.frames, remedy_of_refusal(error, "rebuild"))
        return
    if fault is not None:
        yield Damage(None, None, None, fault, layout.frames, "rebuild")


def _extra_damages(layout: CacheLayout, group: CacheGroup) -> Iterator[Damage]:
    """The files beside the arrays that a cache may have or lack."""
    for path, read in ((layout.parameters, read_parameters), (layout.fidelity, read_fidelity)):
        if not path.exists():
            continue
        try:
            read(layout, group)
        except DiskError as error:
            yield Damage(None, None, None, str(error), path, remedy_of_refusal(error, "remove"))
        except CacheError as error:
            what = error.what if isinstance(error, DamageError) else str(error)
            yield Damage(None, None, None, what, path, "remove")
