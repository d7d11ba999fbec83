"""What nuScenes tables promise about each other: fields, unique tokens, foreign keys, chains, key frames.

nuscenes-devkit checks almost none of it: a duplicated token, a broken chain or two key frames of one camera pass
silently there, and the rest ends in a bare KeyError. Numbers are checked where they are used (``table_rows``).
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

from scenes.table_rows import Row, Tables, integer_rows, row_error
from schemas.errors import DataError

FIELDS: dict[str, tuple[str, ...]] = {
    "attribute": ("name",),
    "calibrated_sensor": ("sensor_token", "translation", "rotation", "camera_intrinsic"),
    "category": ("name",),
    "ego_pose": ("timestamp", "translation", "rotation"),
    "instance": ("category_token",),
    "log": (),
    "map": ("log_tokens", "filename"),
    "sample": ("timestamp", "prev", "next", "scene_token"),
    "sample_annotation": (
        *("sample_token", "instance_token", "attribute_tokens", "translation", "size", "rotation"),
        *("prev", "next", "num_lidar_pts", "num_radar_pts"),
    ),
    "sample_data": (
        *("sample_token", "ego_pose_token", "calibrated_sensor_token", "timestamp", "is_key_frame"),
        *("height", "width", "filename"),
    ),
    "scene": ("log_token", "nbr_samples", "first_sample_token", "last_sample_token", "name"),
    "sensor": ("channel",),
    "visibility": (),
}
"""The thirteen tables of nuScenes v1.0 and, beside ``token``, the fields that are read from each."""

_REFERENCES: tuple[tuple[str, str, str], ...] = (
    ("calibrated_sensor", "sensor_token", "sensor"),
    ("instance", "category_token", "category"),
    ("sample", "scene_token", "scene"),
    ("sample_annotation", "attribute_tokens", "attribute"),
    ("sample_annotation", "instance_token", "instance"),
    ("sample_annotation", "sample_token", "sample"),
    ("sample_data", "calibrated_sensor_token", "calibrated_sensor"),
    ("sample_data", "ego_pose_token", "ego_pose"),
    ("sample_data", "sample_token", "sample"),
    ("scene", "first_sample_token", "sample"),
    ("scene", "last_sample_token", "sample"),
    ("scene", "log_token", "log"),
)


def check_tables(tables: Tables) -> None:
    """Check everything that rows promise about each other.

    Args:
        tables: all thirteen, by name.

    Raises:
        DataError: naming the table, the row and what is wrong with it.
    """
    for table, fields in FIELDS.items():
        _check_fields(table, tables[table], ("token", *fields))
        _check_unique(table, tables[table], "token")
    _check_unique("scene", tables["scene"], "name")
    for table, field, target in _REFERENCES:
        _check_references(tables, table, field, target)
    _check_maps(tables)
    _check_sample_chains(tables)
    _check_annotation_chains(tables)


def _check_fields(table: str, rows: Any, fields: tuple[str, ...]) -> None:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{table}.json: expected a list of rows. Restore the table from the nuScenes download.")
    wanted = set(fields)
    for row in rows:
        if not wanted <= row.keys():
            missing = ", ".join(sorted(wanted - row.keys()))
            raise row_error(table, row.get("token"), f"the field {missing} is missing")


def _check_unique(table: str, rows: list[dict[str, Any]], field: str) -> None:
    values = [row[field] for row in rows]
    for row in rows:
        if not isinstance(row[field], str) or not row[field]:
            raise row_error(table, row["token"], f"{field} must be a non-empty text, got {row[field]!r}")
    if len(set(values)) < len(values):
        value, count = Counter(values).most_common(1)[0]
        raise row_error(table, value, f"{count} rows have the same {field}; it must be unique")


def _check_references(tables: Tables, table: str, field: str, target: str) -> None:
    known = {row["token"] for row in tables[target]}
    for row in tables[table]:
        value = row[field]
        for token in value if isinstance(value, list) else (value,):
            if token not in known:
                raise row_error(table, row["token"], f"{field} names {token!r}, which {target}.json does not have")


def _check_maps(tables: Tables) -> None:
    """Every log has a map. Maps also list logs of other versions: the published v1.0-mini does."""
    mapped = {token for row in tables["map"] for token in row["log_tokens"]}
    for row in tables["log"]:
        if row["token"] not in mapped:
            raise row_error("log", row["token"], "no row of map.json lists this log in its log_tokens")


def _check_sample_chains(tables: Tables) -> None:
    samples = tables["sample"]
    integer_rows(samples, "sample", "timestamp", 1)
    _check_chain("sample", samples, "scene_token", lambda row: row["timestamp"])
    counts = Counter(row["scene_token"] for row in samples)
    heads = Counter(row["scene_token"] for row in samples if row["prev"] == "")
    by_token = {row["token"]: row for row in samples}
    for scene in tables["scene"]:
        token, count = scene["token"], counts[scene["token"]]
        if count != scene["nbr_samples"]:
            raise row_error("scene", token, f"nbr_samples is {scene['nbr_samples']}, but sample.json has {count}")
        if heads[token] != 1:
            raise row_error("scene", token, f"its samples form {heads[token]} chains of prev/next, expected one")
        for field, link in (("first_sample_token", "prev"), ("last_sample_token", "next")):
            sample = by_token[scene[field]]
            if sample["scene_token"] != token or sample[link] != "":
                raise row_error("scene", token, f"{field} {scene[field]!r} is not that end of the scene's chain")


def _check_annotation_chains(tables: Tables) -> None:
    time_us = {row["token"]: row["timestamp"] for row in tables["sample"]}
    rows = tables["sample_annotation"]
    _check_chain("sample_annotation", rows, "instance_token", lambda row: time_us[row["sample_token"]])


def _check_chain(table: str, rows: list[dict[str, Any]], group: str, time_us_of: Callable[[Row], int]) -> None:
    """Links go both ways, stay in their group and run strictly forward in time; hence they have no cycles."""
    by_token = {row["token"]: row for row in rows}
    links = (("prev", "next"), ("next", "prev"))
    for row in rows:
        for link, _ in links:
            if row[link] != "" and row[link] not in by_token:
                raise row_error(table, row["token"], f"{link} names {row[link]!r}, which {table}.json does not have")
    for row in rows:
        token = row["token"]
        for link, back in links:
            if row[link] == "":
                continue
            other = by_token[row[link]]
            if other[back] != token or other[group] != row[group]:
                raise row_error(table, token, f"{link} is {row[link]!r}, but that row's {back} is {other[back]!r}")
            earlier, later = (other, row) if link == "prev" else (row, other)
            if not time_us_of(earlier) < time_us_of(later):
                what = (
                    f"timestamps are out of order: {link} is {row[link]!r}, yet {time_us_of(earlier)} is not before "
                    f"{time_us_of(later)}"
                )
                raise row_error(table, token, what)
