"""Paths that tables name must stay inside the data root.

The rule is lexical: an absolute path, a drive, a ``..`` or a NUL is refused. Symbolic links are followed, because a
data root legitimately links its folders to other disks, and whoever can place a link there owns the data anyway; the
tables, which are downloaded text, cannot lead out.
"""

from pathlib import Path, PurePosixPath, PureWindowsPath

from schemas.errors import DataError


def confined_path(data_root: Path, relative: str) -> Path:
    """The file that a table names, inside the data root.

    Args:
        data_root: the nuScenes directory.
        relative: path as the table gives it, with forward slashes.

    Raises:
        DataError: the path is empty or could leave the data root.
    """
    path = PurePosixPath(relative)
    windows = PureWindowsPath(relative)
    inside = path.parts and not path.is_absolute() and not windows.drive and "\\" not in relative
    if not inside or ".." in path.parts or "\0" in relative:
        raise DataError(
            f"the path {relative!r} leaves the data directory {data_root}: expected a relative path without '..', "
            "such as samples/CAM_FRONT/name.jpg. Restore the table that names it from the nuScenes download."
        )
    return data_root / path
