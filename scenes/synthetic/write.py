"""Writes a whole world as a nuScenes folder, in parallel over scenes, and shows it only when it is complete."""

import fcntl
import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from scenes.synthetic.options import GENERATOR_VERSION, TABLE_VERSION, WorldOptions
from scenes.synthetic.plan import plan_scene
from scenes.synthetic.recording import record_scene
from scenes.synthetic.scene_names import scene_names
from scenes.synthetic.tables import SceneRows, scene_tables
from scenes.synthetic.vocabulary import LIDAR, shared_tables, token
from schemas.errors import DataError
from schemas.frames import CAMERAS

SIGNATURE = "synthetic_world.json"
"""Names the options and the generator version that made the folder."""

SCENE_TABLES = (
    "log",
    "scene",
    "sample",
    "calibrated_sensor",
    "sample_data",
    "ego_pose",
    "instance",
    "sample_annotation",
)

_MAP_FILE = "maps/placeholder.png"


def is_world(data_root: Path, options: WorldOptions) -> bool:
    """Whether the folder is a complete world made by these options and this version of the generator."""
    try:
        found = json.loads((data_root / SIGNATURE).read_text())
    except (OSError, ValueError):
        return False
    return bool(found == _signature(options))


def write_world(options: WorldOptions, data_root: Path, workers: int, on_scene: Callable[[str], None]) -> None:
    """Write a world; does nothing where it already stands.

    The folder appears under its name only when it is complete; until then its parts lie in ``<name>.partial``, which an
    interrupted run leaves behind and the next one replaces.

    Args:
        options: what to write. The bytes depend on nothing else.
        data_root: the folder to make; its parent must exist or be makeable.
        workers: processes; 1 works in this one.
        on_scene: told the name of each scene when its files are written.

    Raises:
        DataError: something else is in ``data_root``, or another run is writing it.
    """
    if is_world(data_root, options):
        return
    _refuse_other_content(data_root)
    with _partial_folder(data_root) as partial_root:
        for folder in ("maps", "can_bus", TABLE_VERSION, *(f"samples/{channel}" for channel in (LIDAR, *CAMERAS))):
            (partial_root / folder).mkdir(parents=True)
        splits = scene_names(options)
        names = sorted(name for split in splits.values() for name in split)
        _write_scenes(options, names, partial_root, workers, on_scene)
        _write_shared(options, splits, partial_root)
        (partial_root / SIGNATURE).write_text(json.dumps(_signature(options), indent=2) + "\n")
        partial_root.rename(data_root)


def _signature(options: WorldOptions) -> dict[str, object]:
    return {"generator_version": GENERATOR_VERSION, "options": options.model_dump(mode="json")}


def _refuse_other_content(data_root: Path) -> None:
    if not data_root.exists() or (data_root.is_dir() and not any(data_root.iterdir())):
        return
    signature = data_root / SIGNATURE
    if not signature.is_file():
        raise DataError(
            f"{data_root} exists and is not a synthetic world (it has no {SIGNATURE}). "
            "Choose another folder for the world, or move this one away; nothing was changed."
        )
    raise DataError(
        f"{data_root} holds a synthetic world made by other options or another version of the generator. "
        f"Expected {SIGNATURE} to say {signature.read_text().strip()!r}"
    )


@contextmanager
def _partial_folder(data_root: Path) -> Iterator[Path]:
    """An empty folder beside ``data_root``, locked for this run, removed when it is left without being renamed."""
    partial_root = data_root.with_name(data_root.name + ".partial")
    data_root.parent.mkdir(parents=True, exist_ok=True)
    lock_path = data_root.with_name(data_root.name + ".lock")
    with lock_path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(f"another run is writing {data_root}. Wait for it, or choose another folder.") from None
        try:
            shutil.rmtree(partial_root, ignore_errors=True)
            partial_root.mkdir()
            yield partial_root
        finally:
            shutil.rmtree(partial_root, ignore_errors=True)
            lock_path.unlink(missing_ok=True)


def _write_scenes(
    options: WorldOptions, names: list[str], data_root: Path, workers: int, on_scene: Callable[[str], None]
) -> None:
    """Record all scenes and write their tables, in the order of ``names`` whatever finishes first."""
    record = partial(_scene_rows, options, data_root)
    tables: dict[str, list[str]] = {table: [] for table in SCENE_TABLES}

    def collect(results: Iterator[dict[str, str]]) -> None:
        for name, rows in zip(names, results, strict=True):
            for table, text in rows.items():
                if text:
                    tables[table].append(text)
            on_scene(name)

    if workers <= 1:
        collect(map(record, names))
    else:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            try:
                collect(pool.map(record, names))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    for table, texts in tables.items():
        _write_table(data_root, table, ",\n".join(texts))


def _scene_rows(options: WorldOptions, data_root: Path, name: str) -> dict[str, str]:
    """Record one scene; its rows as JSON, one a line, by table."""
    plan = plan_scene(options, name)
    recording = record_scene(options, plan, data_root)
    sighting = recording.sighting
    record = SceneRows(
        plan=plan,
        image_size_wh=(options.image_width, options.image_height),
        lidar_points=recording.lidar_points,
        radar_points=recording.radar_points,
        visible_share=sighting.shown / np.maximum(sighting.whole, 1),
    )
    rows = scene_tables(record)
    return {table: ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows[table]) for table in SCENE_TABLES}


def _write_table(data_root: Path, table: str, rows: str) -> None:
    (data_root / TABLE_VERSION / f"{table}.json").write_text(f"[\n{rows}\n]\n")


def _write_shared(options: WorldOptions, splits: dict[str, list[str]], data_root: Path) -> None:
    """Tables that are about no single scene, the map that nuScenes asks for, and the split of our own."""
    for table, rows in shared_tables().items():
        _write_table(data_root, table, ",\n".join(json.dumps(row) for row in rows))
    names = sorted(name for split in splits.values() for name in split)
    row = {
        "category": "semantic_prior",
        "token": token("map"),
        "filename": _MAP_FILE,
        "log_tokens": [token(options.seed, name, "log") for name in names],
    }
    _write_table(data_root, "map", json.dumps(row))
    done, encoded = cv2.imencode(".png", np.zeros((16, 16), dtype=np.uint8))
    assert done
    (data_root / _MAP_FILE).write_bytes(encoded.tobytes())
    (data_root / TABLE_VERSION / "splits.json").write_text(json.dumps({"tune": splits["tune"]}) + "\n")
