"""Writes a whole world as a nuScenes folder, in parallel over scenes, and shows it only when it is complete."""

import json
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from scenes.synthetic.options import GENERATOR_VERSION, TABLE_VERSION, WorldOptions
from scenes.synthetic.plan import plan_scene
from scenes.synthetic.recording import record_scene
from scenes.synthetic.scene_names import scene_names
from scenes.synthetic.tables import SCENE_TABLES, SceneRows, scene_tables
from scenes.synthetic.unfinished import unfinished_folder
from scenes.synthetic.vocabulary import LIDAR, shared_tables, token
from schemas.errors import DataError
from schemas.frames import CAMERAS

SIGNATURE = "synthetic_world.json"
"""Names the options and the generator version that made the folder; written last."""

MAP_FILE = "maps/placeholder.png"


def is_world(data_root: Path, options: WorldOptions) -> bool:
    """Whether the folder is a complete world made by these options and this version of the generator."""
    try:
        found = json.loads((data_root / SIGNATURE).read_text())
    except (OSError, ValueError):
        return False
    return bool(found == _signature(options))


def write_world(options: WorldOptions, data_root: Path, workers: int, on_scene: Callable[[str], None]) -> None:
    """Write a world; does nothing where it already stands.

    The folder appears under its name only when it is complete. Until then its parts lie in ``<name>.partial``, which
    is removed on an error and, after a kill, replaced by the next run.

    Args:
        options: what to write. The bytes depend on nothing else.
        data_root: the folder to make; it may exist if it is empty.
        workers: processes; 1 works in this one.
        on_scene: told the name of each scene when its files are written, in name order.

    Raises:
        DataError: something else is in ``data_root``, or another run is writing it.
    """
    if is_world(data_root, options):
        return
    _refuse_other_content(data_root, options)
    splits = scene_names(options)
    names = sorted(name for split in splits.values() for name in split)
    with unfinished_folder(data_root) as folder:
        for below in ("maps", "can_bus", TABLE_VERSION, *(f"samples/{channel}" for channel in (LIDAR, *CAMERAS))):
            (folder / below).mkdir(parents=True)
        _write_scenes(options, names, folder, workers, on_scene)
        _write_shared(options, names, splits["tune"], folder)
        (folder / SIGNATURE).write_text(json.dumps(_signature(options), indent=2) + "\n")


def _signature(options: WorldOptions) -> dict[str, object]:
    return {"generator_version": GENERATOR_VERSION, "options": options.model_dump(mode="json")}


def _refuse_other_content(data_root: Path, options: WorldOptions) -> None:
    if not data_root.exists() or (data_root.is_dir() and not any(data_root.iterdir())):
        return
    advice = "Nothing was changed. Name another folder for the new world, or move this one away."
    signature = data_root / SIGNATURE
    if not signature.is_file():
        raise DataError(f"{data_root} exists and is no synthetic world (it has no {SIGNATURE}). {advice}")
    raise DataError(
        f"{data_root} holds another synthetic world. Expected {json.dumps(_signature(options))}, "
        f"got {' '.join(signature.read_text().split())}. {advice}"
    )


def _write_scenes(
    options: WorldOptions, names: list[str], folder: Path, workers: int, on_scene: Callable[[str], None]
) -> None:
    """Record all scenes and write their tables, in the order of ``names`` whatever finishes first."""
    record = partial(_scene_rows, options, folder)
    if workers <= 1:
        _collect(names, map(record, names), folder, on_scene)
        return
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawning) as pool:
        try:
            with _interrupts_held_back():
                results = pool.map(record, names)
            _collect(names, results, folder, on_scene)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let Ctrl-C wait until the block ends. Processes begun in it never see it: a terminal sends it to them too."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _collect(
    names: list[str], results: Iterable[dict[str, str]], folder: Path, on_scene: Callable[[str], None]
) -> None:
    """Write the rows of each scene to the tables as they come."""
    with ExitStack() as open_files:
        files = {
            table: open_files.enter_context((folder / TABLE_VERSION / f"{table}.json").open("w"))
            for table in SCENE_TABLES
        }
        before = dict.fromkeys(SCENE_TABLES, "[\n")
        for name, rows in zip(names, results, strict=True):
            for table in filter(rows.get, SCENE_TABLES):
                files[table].write(before[table] + rows[table])
                before[table] = ",\n"
            on_scene(name)
        for table, file in files.items():
            file.write("[]\n" if before[table] == "[\n" else "\n]\n")


def _scene_rows(options: WorldOptions, folder: Path, name: str) -> dict[str, str]:
    """Record one scene; its rows as JSON, one a line, by table."""
    plan = plan_scene(options, name)
    recording = record_scene(options, plan, folder)
    rows = scene_tables(
        SceneRows(
            plan=plan,
            image_size_wh=(options.image_width, options.image_height),
            lidar_points=recording.lidar_points,
            radar_points=recording.radar_points,
            visible_share=recording.sighting.shown / np.maximum(recording.sighting.whole, 1),
        )
    )
    return {table: _json_lines(rows[table]) for table in SCENE_TABLES}


def _json_lines(rows: list[dict[str, object]]) -> str:
    return ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)


def _write_shared(options: WorldOptions, names: list[str], tune_names: list[str], folder: Path) -> None:
    """Tables that are about no single scene, the map that nuScenes asks for, and the split of our own."""
    world_map: dict[str, object] = {
        "category": "semantic_prior",
        "token": token("map"),
        "filename": MAP_FILE,
        "log_tokens": [token(options.seed, name, "log") for name in names],
    }
    for table, rows in {**shared_tables(), "map": [world_map]}.items():
        (folder / TABLE_VERSION / f"{table}.json").write_text(f"[\n{_json_lines(rows)}\n]\n")
    done, encoded = cv2.imencode(".png", np.zeros((16, 16), dtype=np.uint8))
    assert done
    (folder / MAP_FILE).write_bytes(encoded.tobytes())
    (folder / TABLE_VERSION / "splits.json").write_text(json.dumps({"tune": tune_names}) + "\n")
