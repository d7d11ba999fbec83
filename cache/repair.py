"""``repair``: drops exactly what is damaged and makes derived files again, so that the next writer fills the gaps.

The order is such that a repair may be killed at any instant and begun again: a scene loses its rows in
``frames.parquet`` and its receipt before anything else, and what then lies without a receipt is swept.
"""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from cache.damage import Damage
from cache.durable_files import disk_errors, fsync_directory, remove_file, write_file
from cache.frame_index_file import add_to_frames
from cache.group import CacheGroup, document_bytes, read_group
from cache.layout import VALID, CacheLayout
from cache.publishing import scene_files, valid_bytes, withdraw
from cache.scene_check import check_scene
from cache.scene_lock import PartialFolder, exclusive_lock, sweep
from cache.verify import Verification, local_layout


@dataclass(frozen=True)
class Repair:
    """What a repair did.

    Attributes:
        dropped: scenes that are absent now, to be made again.
        mended: findings whose file was made again or removed.
        left: findings that no program can mend, harmless ones included.
    """

    dropped: tuple[str, ...]
    mended: tuple[Damage, ...]
    left: tuple[Damage, ...]


def repair(path: Path, found: Verification, on_scene: Callable[[str], None]) -> Repair:
    """Mend a cache. Sound scenes are not touched; readers and writers may go on with it meanwhile.

    Args:
        path: the cache folder.
        found: by ``verify``. It may be out of date: a scene is checked again, under its lock, before it is dropped.
        on_scene: called with the name of each scene once it is mended, or found to be sound by now.

    Raises:
        CacheError: as ``verify``.
        DiskError: the disk refuses; what was mended by then stays so, and the same call goes on from there.
    """
    layout = local_layout(path)
    group = read_group(layout)
    with disk_errors("repairing the cache", path):
        layout.workshop.mkdir(exist_ok=True)
        sweep(layout.partial)
        outcome = [
            _mend_scene(layout, group, name, on_scene)
            for name in dict.fromkeys(damage.scene_name for damage in found.damages if damage.scene_name is not None)
        ]
        others = [damage for damage in found.damages if damage.scene_name is None]
        mendable = [damage for damage in others if damage.remedy in ("rebuild", "remove")]
        for damage in mendable:
            _mend(layout, damage)
    left = [damage for part in outcome for damage in part.left] + [d for d in others if d not in mendable]
    if not any(damage.remedy == "mend permissions" for damage in left):
        add_to_frames(layout, group, ())
    return Repair(
        dropped=tuple(name for part in outcome for name in part.dropped),
        mended=(*(damage for part in outcome for damage in part.mended), *mendable),
        left=tuple(left),
    )


def _mend_scene(layout: CacheLayout, group: CacheGroup, scene_name: str, on_scene: Callable[[str], None]) -> Repair:
    """Check a scene again, now that nobody else can change it, and act on what is found now."""
    with exclusive_lock(layout.scene_lock(scene_name)):
        check = check_scene(layout, group, scene_name)
        remedies = {damage.remedy for damage in check.damages}
        if "drop scene" in remedies:
            with exclusive_lock(layout.index_lock):  # nobody shall write rows of this scene between the two
                remove_file(layout.frames)
                remove_file(layout.receipt(scene_name))
        if remedies & {"drop scene", "sweep"}:
            withdraw(layout, group, scene_name)
        elif "rebuild" in remedies and check.receipt is not None:
            steps = check.receipt.rows.num_rows
            _write(layout, scene_files(layout, group, scene_name)[VALID], valid_bytes(steps, group))
    on_scene(scene_name)
    if "drop scene" in remedies:
        return Repair((scene_name,), (), ())
    left = tuple(damage for damage in check.damages if damage.remedy == "mend permissions")
    return Repair((), tuple(damage for damage in check.damages if damage not in left), left)


def _mend(layout: CacheLayout, damage: Damage) -> None:
    """Mend what belongs to no scene: an array's own metadata is written again, other files are removed."""
    if damage.array_name is None:  # ``frames.parquet``, which is made again in the end; parameters; a stray receipt
        remove_file(damage.path)
        return
    group_document = json.loads(layout.group_document.read_bytes())
    document = group_document["consolidated_metadata"]["metadata"][damage.array_name]
    if not damage.path.parent.exists():
        damage.path.parent.mkdir()
        fsync_directory(layout.root)
    _write(layout, damage.path, document_bytes(document))


def _write(layout: CacheLayout, target: Path, data: bytes) -> None:
    with ExitStack() as stack:
        folder = PartialFolder(layout.partial, target.name)
        stack.callback(folder.remove)
        write_file(target, data, folder.path / "file.partial")
