"""Annotations as flat arrays, with the filters that the published training applies."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenes.table_rows import Row, Tables, integer_rows, number_rows, rotation_rows, row_error
from scenes.visibility import visibility_arrays

MAX_TIME_DIFFERENCE_S = 1.5


def annotation_arrays(
    tables: Tables, samples: Sequence[Row], label_of_category: Mapping[str, int]
) -> dict[str, NDArray[Any]]:
    """The ``box_*`` arrays of ``SceneIndex``: boxes of the ten classes that hold a LiDAR or radar point.

    Args:
        tables: rows that passed ``check_tables``.
        samples: all samples in the order of the index.
        label_of_category: index into ``CLASS_NAMES`` by category name.

    Raises:
        DataError: a box has a size, rotation or position that is none.
    """
    category_of = {row["token"]: row["name"] for row in tables["category"]}
    label_of = {row["token"]: label_of_category.get(category_of[row["category_token"]]) for row in tables["instance"]}
    order = {row["token"]: number for number, row in enumerate(samples)}
    rows = [row for row in tables["sample_annotation"] if label_of[row["instance_token"]] is not None]
    points = sum(integer_rows(rows, "sample_annotation", field, 0) for field in ("num_lidar_pts", "num_radar_pts"))
    rows = [row for row, count in zip(rows, np.atleast_1d(points).tolist(), strict=True) if count > 0]
    rows.sort(key=lambda row: (order[row["sample_token"]], row["token"]))
    _check_attributes(rows)
    size_wlh_m = number_rows(rows, "sample_annotation", "size", (3,))
    for number in np.flatnonzero((size_wlh_m <= 0).any(axis=1)):
        what = f"size must be positive, got {rows[number]['size']}"
        raise row_error("sample_annotation", rows[number]["token"], what)
    sightings = visibility_arrays(tables["visibility"], tables["sample_annotation"], order)
    boxes_in_sample = np.bincount([order[row["sample_token"]] for row in rows], minlength=len(samples))
    return {
        "box_start": np.concatenate([[0], np.cumsum(boxes_in_sample)]).astype(np.int64),
        "box_translation_m": number_rows(rows, "sample_annotation", "translation", (3,)),
        "box_size_wlh_m": size_wlh_m,
        "box_rotation_wxyz": rotation_rows(rows, "sample_annotation"),
        "box_velocity_mps": _velocities(tables, rows),
        "box_label": np.array([label_of[row["instance_token"]] for row in rows], dtype=np.int64),
        "box_visibility": np.array([sightings["level"][row["token"]] for row in rows], dtype=np.int8),
        "box_unseen_keyframes": np.array([sightings["unseen"][row["token"]] for row in rows], dtype=np.int16),
    }


def _velocities(tables: Tables, rows: Sequence[Row]) -> NDArray[np.float64]:
    """Velocities (n, 2) in the global frame, as nuscenes-devkit's ``box_velocity`` estimates them.

    Centred over the neighbouring annotations of the object, one-sided at the ends; NaN for a single annotation, and
    across gaps of more than 1.5 s (3 s when centred).
    """
    by_token = {row["token"]: row for row in tables["sample_annotation"]}
    time_us = {row["token"]: row["timestamp"] for row in tables["sample"]}
    first = [by_token[row["prev"] or row["token"]] for row in rows]
    last = [by_token[row["next"] or row["token"]] for row in rows]
    seconds = [1e-6 * np.array([time_us[r["sample_token"]] for r in ends], dtype=np.int64) for ends in (first, last)]
    positions = [number_rows(ends, "sample_annotation", "translation", (3,)) for ends in (first, last)]
    difference_s = seconds[1] - seconds[0]
    centred = np.array([row["prev"] != "" and row["next"] != "" for row in rows], dtype=np.bool_)
    limit_s = np.where(centred, 2 * MAX_TIME_DIFFERENCE_S, MAX_TIME_DIFFERENCE_S)
    known = (difference_s > 0) & (difference_s <= limit_s)
    velocities = np.full((len(rows), 2), np.nan)
    velocities[known] = (positions[1] - positions[0])[known, :2] / difference_s[known, None]
    return velocities


def _check_attributes(rows: Sequence[Row]) -> None:
    for row in rows:
        if len(row["attribute_tokens"]) > 1:
            what = f"an annotation has at most one attribute, got {len(row['attribute_tokens'])}"
            raise row_error("sample_annotation", row["token"], what)
