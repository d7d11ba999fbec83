"""Rows of nuScenes tables as numbers, refusing what is not: the message names table, row, field and value."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import DataError

Row = Mapping[str, Any]
Tables = Mapping[str, list[dict[str, Any]]]
"""Rows by table name, as ``json.load`` gives them."""

UNIT_TOLERANCE = 1e-3


def row_error(table: str, token: object, what: str) -> DataError:
    """An error about one row of a table."""
    return DataError(f"{table}.json, row {token!r}: {what}. Restore the table from the nuScenes download.")


def number_rows(rows: Sequence[Row], table: str, field: str, shape: tuple[int, ...] = ()) -> NDArray[np.float64]:
    """One field of many rows as finite floats.

    Args:
        rows: n rows of ``table``.
        table: their table, for the message.
        field: a number, or nested lists of numbers.
        shape: the shape that each row's field must have.

    Returns:
        (n, *shape) float64.

    Raises:
        DataError: a row holds something else, NaN or infinity.
    """
    values = _array([row[field] for row in rows])
    if len(rows) == 0:
        return np.zeros((0, *shape))
    if not _are_numbers(values, (len(rows), *shape)):
        for row in rows:
            if not _are_numbers(_array(row[field]), shape):
                form = f"finite numbers of shape {shape}" if shape else "a finite number"
                raise row_error(table, row["token"], f"{field} must be {form}, got {row[field]!r}")
    return values.astype(np.float64)


def integer_rows(rows: Sequence[Row], table: str, field: str, minimum: int) -> NDArray[np.int64]:
    """One field of many rows as int64, (n,).

    Raises:
        DataError: a row holds no integer, or one below ``minimum``.
    """
    for row in rows:
        value = row[field]
        if type(value) is not int or not minimum <= value < 2**63:
            raise row_error(table, row["token"], f"{field} must be an integer of at least {minimum}, got {value!r}")
    return np.array([row[field] for row in rows], dtype=np.int64)


def rotation_rows(rows: Sequence[Row], table: str) -> NDArray[np.float64]:
    """The rotation of many rows as unit quaternions (n, 4), w first.

    Raises:
        DataError: a row holds no quaternion, or one that is not of unit length within ``UNIT_TOLERANCE``.
    """
    rotations = number_rows(rows, table, "rotation", (4,))
    lengths = np.linalg.norm(rotations, axis=1)
    for number in np.flatnonzero(np.abs(lengths - 1) > UNIT_TOLERANCE):
        what = f"rotation must be a unit quaternion, got {rows[number]['rotation']} of length {lengths[number]:.6g}"
        raise row_error(table, rows[number]["token"], what)
    return rotations


def intrinsic_rows(rows: Sequence[Row]) -> NDArray[np.float64]:
    """The camera matrices of many calibrated_sensor rows, (n, 3, 3).

    Raises:
        DataError: a row holds no pinhole matrix.
    """
    table = "calibrated_sensor"
    matrices = number_rows(rows, table, "camera_intrinsic", (3, 3))
    focal_lengths = matrices[:, [0, 1], [0, 1]]
    pinhole = (matrices[:, 2] == (0, 0, 1)).all(axis=1) & (focal_lengths > 0).all(axis=1)
    for number in np.flatnonzero(~pinhole):
        what = f"camera_intrinsic must be [[fx, s, cx], [0, fy, cy], [0, 0, 1]], got {matrices[number].tolist()}"
        raise row_error(table, rows[number]["token"], what)
    return matrices


def _array(value: object) -> NDArray[Any]:
    try:
        return np.array(value)
    except ValueError:  # ragged lists
        return np.array(None)


def _are_numbers(values: NDArray[Any], shape: tuple[int, ...]) -> bool:
    return values.dtype.kind in "iuf" and values.shape == shape and bool(np.isfinite(values).all())
