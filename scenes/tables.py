"""Open a nuScenes version: from the saved index when it fits, through nuscenes-devkit when not."""

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from scenes.data_folder import check_folder
from scenes.scene_index import INDEX_VERSION, SceneIndex, read_index, save_index
from scenes.scene_tables import SceneTables
from schemas.boxes import CLASS_NAMES
from schemas.errors import DataError

_LOGGER = logging.getLogger("bev")


def load_tables(data_root: Path, version: str, index_dir: Path | None = None) -> SceneTables:
    """The scenes of a nuScenes version.

    The tables are read through nuscenes-devkit once and checked; their flat form is kept in ``index_dir`` and used for
    as long as the tables, ``splits.json`` and the CAN bus files keep their sizes and modification times.

    Args:
        data_root: folder that holds ``samples/``, ``maps/`` and the version's folder of tables.
        version: e.g. ``v1.0-mini``.
        index_dir: where to keep the flat form; None keeps it nowhere and reads the tables every time.

    Raises:
        DataError: the folder is not nuScenes, or something in the tables is not what nuScenes v1.0 promises.
    """
    check_folder(data_root, version)
    key = _sources_key(data_root, version)
    index = None if index_dir is None else read_index(_index_path(index_dir, data_root, version), key)
    if index is None:
        index = _build(data_root, version)
        if index_dir is not None:
            _save(_index_path(index_dir, data_root, version), index, key)
    _warn(data_root, index)
    return SceneTables(data_root, version, index)


def _build(data_root: Path, version: str) -> SceneIndex:
    # The devkit costs seconds to import; a process that finds a fitting index never pays for it.
    from scenes import devkit  # noqa: PLC0415
    from scenes.index_building import Conventions, build_index  # noqa: PLC0415
    from scenes.splits import read_custom_splits  # noqa: PLC0415
    from scenes.table_checks import check_tables  # noqa: PLC0415

    custom = read_custom_splits(data_root, version)
    with devkit.garbage_collection_off():
        tables = devkit.devkit_tables(devkit.open_devkit(data_root, version))
        check_tables(tables)
        labels = {row["name"]: devkit.detection_name(row["name"]) for row in tables["category"]}
        conventions = Conventions(
            label_of_category={name: CLASS_NAMES.index(label) for name, label in labels.items() if label is not None},
            splits={**devkit.scenes_of_splits(version), **custom},
            custom_splits=frozenset(custom),
            without_can_bus=devkit.scenes_without_can_bus(data_root),
        )
        return build_index(data_root, tables, conventions)


def _index_path(index_dir: Path, data_root: Path, version: str) -> Path:
    place = hashlib.sha256(str(data_root.resolve()).encode()).hexdigest()[:12]
    return index_dir / f"{version}-{place}.npz"


def _sources_key(data_root: Path, version: str) -> str:
    """Names, sizes and times of all files that the index is made from, as one line of JSON's hash."""
    stated = [
        (str(path.relative_to(data_root)), status.st_size, status.st_mtime_ns)
        for path in sorted(_sources(data_root, version))
        for status in (path.stat(),)
    ]
    return hashlib.sha256(json.dumps([INDEX_VERSION, version, stated]).encode()).hexdigest()


def _sources(data_root: Path, version: str) -> Iterator[Path]:
    yield from (data_root / version).glob("*.json")
    yield from (data_root / "can_bus").glob("*_pose.json")


def _save(path: Path, index: SceneIndex, key: str) -> None:
    try:
        save_index(path, index, key)
    except OSError as error:
        raise DataError(
            f"cannot write the table index {path}: {error}. Make its folder writable, or make room on its disk."
        ) from error


def _warn(data_root: Path, index: SceneIndex) -> None:
    """Say once per opening what is unusual but allowed."""
    names = [name.decode() for name in index.scene_name]
    lengths = np.diff(index.scene_start)
    single = [name for name, length in zip(names, lengths.tolist(), strict=True) if length == 1]
    if single:
        _LOGGER.warning(
            "%s of one frame (%s): nothing before it to remember, and no velocities.", _count(single, names), single[0]
        )
    present = index.has_can_bus[index.scene_start[:-1]].tolist()
    silent = [name for name, has_can_bus in zip(names, present, strict=True) if not has_can_bus]
    if silent:
        _LOGGER.warning(
            "%s without CAN bus (%s): accelerations, rotation rates and speeds are zero there, as in the published "
            "training. nuScenes' CAN bus expansion belongs in %s.",
            _count(silent, names),
            silent[0],
            data_root / "can_bus",
        )
    boxes_before = index.box_start[index.scene_start]
    empty = [name for name, boxes in zip(names, np.diff(boxes_before).tolist(), strict=True) if boxes == 0]
    if empty and index.has_labels:
        _LOGGER.warning(
            "%s without a single annotated object of the ten classes (%s): they teach, and score, that nothing is "
            "there. Leave them out with --scenes or a split of your own if that is not so.",
            _count(empty, names),
            empty[0],
        )


def _count(some: list[str], every: list[str]) -> str:
    return f"{len(some)} of {len(every)} scenes"
