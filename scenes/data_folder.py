"""The look at a data directory that comes before all else: is it nuScenes, and does the version have its tables."""

from pathlib import Path

from scenes.table_checks import FIELDS
from schemas.errors import DataError


def check_folder(data_root: Path, version: str) -> None:
    """Refuse a folder that is not nuScenes, a version that is not in it, and a missing table.

    Raises:
        DataError: naming what is missing and what is there.
    """
    if not data_root.is_dir():
        raise DataError(f"there is no directory {data_root}: give --data the folder that holds samples/ and v1.0-*/.")
    versions = sorted(path.parent.name for path in data_root.glob("*/sample_data.json"))
    if not versions:
        raise DataError(
            f"{data_root} is not a nuScenes directory: expected tables such as v1.0-mini/sample_data.json in it. "
            f"Give --data the folder that holds samples/, maps/ and v1.0-*/{_parent_hint(data_root)}."
        )
    if version in ("", ".", "..") or Path(version).name != version or not (data_root / version).is_dir():
        raise DataError(
            f"{data_root} has no version {version!r}: it has {', '.join(versions)}. Give --version one of them."
        )
    missing = [f"{table}.json" for table in FIELDS if not (data_root / version / f"{table}.json").is_file()]
    if missing:
        raise DataError(
            f"{data_root / version} lacks {', '.join(missing)}: nuScenes v1.0 has {len(FIELDS)} tables there. "
            "Unpack the metadata archive of this version again."
        )


def _parent_hint(data_root: Path) -> str:
    """For whoever names the folder of the tables itself."""
    return f", here {data_root.parent}" if (data_root / "sample_data.json").is_file() else ""
