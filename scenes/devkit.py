"""The one door to nuscenes-devkit. Importing it costs seconds and 160 MB, so worker code never does.

The devkit meets bad tables with a bare KeyError or AssertionError; ``open_devkit`` looks for the reason in the raw
tables and tells it.
"""

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nuscenes.can_bus.can_bus_api import NuScenesCanBus
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.nuscenes import NuScenes
from nuscenes.utils.splits import create_splits_scenes

from scenes.confined_paths import confined_path
from scenes.data_folder import check_folder
from scenes.splits import predefined_splits
from scenes.table_checks import FIELDS, check_tables
from scenes.table_rows import Tables
from schemas.errors import DataError


@contextmanager
def garbage_collection_off() -> Iterator[None]:
    """Spare the cyclic collector millions of small dicts, none of them garbage: halves the time over large tables."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def open_devkit(data_root: Path, version: str) -> Any:
    """Load a version with nuscenes-devkit, silently.

    Returns:
        A ``nuscenes.NuScenes``.

    Raises:
        DataError: the folder or a table is not what nuScenes v1.0 promises.
    """
    check_folder(data_root, version)
    try:
        with garbage_collection_off():
            return NuScenes(version=version, dataroot=str(data_root), verbose=False)
    except MemoryError:
        raise
    except Exception as error:  # the devkit raises whatever comes, bare Exception included
        check_tables(_raw_tables(data_root, version))
        _check_map_files(data_root, version)
        raise DataError(
            f"nuscenes-devkit cannot load {version} from {data_root}: {type(error).__name__}: {error}. "
            "Unpack the metadata archive of this version again."
        ) from error


def devkit_tables(devkit: Any) -> Tables:
    """The rows that the devkit holds, by table name; it has added fields of its own to some."""
    return {table: getattr(devkit, table) for table in FIELDS}


def detection_name(category: str) -> str | None:
    """The class of the detection task that a nuScenes category counts as, or None."""
    name: str | None = category_to_detection_name(category)
    return name


def scenes_of_splits(version: str) -> dict[str, tuple[str, ...]]:
    """The devkit's split lists that go with a version: scene names by split."""
    lists = create_splits_scenes()
    return {split: tuple(lists[split]) for split in predefined_splits(version)}


def scenes_without_can_bus(data_root: Path) -> frozenset[str]:
    """Names of the scenes whose CAN bus recording nuScenes declares unusable."""
    if not (data_root / "can_bus").is_dir():
        return frozenset()
    return frozenset(f"scene-{number:04d}" for number in NuScenesCanBus(dataroot=str(data_root)).can_blacklist)


def _raw_tables(data_root: Path, version: str) -> Tables:
    tables = {}
    for table in FIELDS:
        path = data_root / version / f"{table}.json"
        try:
            tables[table] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path} is not readable JSON: {error}. It may have been cut short; unpack the metadata archive again."
            ) from error
    return tables


def _check_map_files(data_root: Path, version: str) -> None:
    for row in _raw_tables(data_root, version)["map"]:
        if not confined_path(data_root, row["filename"]).is_file():
            raise DataError(
                f"{data_root} lacks the map mask {row['filename']}, which {version}/map.json names and "
                "nuscenes-devkit insists on. Unpack the maps of the metadata archive."
            )
