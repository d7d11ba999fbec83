"""A nuScenes version as flat arrays: all that frames need, in one file that opens in milliseconds.

The arrays hold the tables' own numbers, not matrices computed from them, so their hash is the same on every machine.
Rows are in a fixed order (scenes by name, samples by time, boxes by token), whatever the order in the tables.
"""

import dataclasses
import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenes.whole_file import whole_file
from schemas.frames import CAMERAS

Texts = NDArray[Any]
"""Strings as UTF-8 bytes of one width (numpy ``S``): stored without pickling. A dtype that names its width has no
static type."""

SENSORS: tuple[str, ...] = (*CAMERAS, "LIDAR_TOP")
"""Order of the sensor axis: the six cameras, then the LiDAR."""

INDEX_VERSION = 2
"""Raised whenever the arrays below change their meaning, so that older files are made again."""

_STALE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True, eq=False)
class SceneIndex:
    """Flat arrays over S scenes, N samples, M boxes and K splits. Strings are ``Texts``.

    Attributes:
        scene_name, scene_token: (S,) bytes, by name.
        scene_start: (S + 1,) int64, first sample of each scene.
        sample_token: (N,) bytes.
        timestamp_us: (N,) int64.
        sensor_path: (N, 7) bytes, relative to the data root; sensors in ``SENSORS`` order.
        camera_size_wh: (N, 6, 2) int64.
        intrinsics: (N, 6, 3, 3) float64.
        sensor_translation_m, sensor_rotation_wxyz: (N, 7, 3), (N, 7, 4) float64, ego_from_sensor.
        ego_translation_m, ego_rotation_wxyz: (N, 7, 3), (N, 7, 4) float64, global_from_ego at the sensor's time.
        can_bus_motion: (N, 9) float64 acceleration, rotation rate, velocity; zero where ``has_can_bus`` is False.
        has_can_bus: (N,) bool.
        has_labels: () bool.
        box_start: (N + 1,) int64, first box of each sample.
        box_translation_m, box_size_wlh_m: (M, 3) float64, global frame.
        box_rotation_wxyz: (M, 4) float64, global frame.
        box_velocity_mps: (M, 2) float64, global frame, NaN where unknown.
        box_label: (M,) int64, indices into ``CLASS_NAMES``.
        box_visibility, box_unseen_keyframes: (M,) int8 and int16 as in ``scenes.visibility.Sightings``.
        split_name: (K,) bytes.
        split_has_scene: (K, S) bool.
    """

    scene_name: Texts
    scene_token: Texts
    scene_start: NDArray[np.int64]
    sample_token: Texts
    timestamp_us: NDArray[np.int64]
    sensor_path: Texts
    camera_size_wh: NDArray[np.int64]
    intrinsics: NDArray[np.float64]
    sensor_translation_m: NDArray[np.float64]
    sensor_rotation_wxyz: NDArray[np.float64]
    ego_translation_m: NDArray[np.float64]
    ego_rotation_wxyz: NDArray[np.float64]
    can_bus_motion: NDArray[np.float64]
    has_can_bus: NDArray[np.bool_]
    has_labels: NDArray[np.bool_]
    box_start: NDArray[np.int64]
    box_translation_m: NDArray[np.float64]
    box_size_wlh_m: NDArray[np.float64]
    box_rotation_wxyz: NDArray[np.float64]
    box_velocity_mps: NDArray[np.float64]
    box_label: NDArray[np.int64]
    box_visibility: NDArray[np.int8]
    box_unseen_keyframes: NDArray[np.int16]
    split_name: Texts
    split_has_scene: NDArray[np.bool_]

    def sha256(self) -> str:
        """Hash (hex) of all that a frame is made of, ``_NOT_OF_FRAMES`` left out."""
        digest = hashlib.sha256()
        for name in sorted(set(_NAMES) - _NOT_OF_FRAMES):
            array = getattr(self, name)
            digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


_NAMES = tuple(field.name for field in dataclasses.fields(SceneIndex))
_NOT_OF_FRAMES = frozenset({"split_name", "split_has_scene", "box_visibility", "box_unseen_keyframes"})
"""A manifest names its split by itself, and sightings are for looking at scores only."""


def text_array(texts: list[str]) -> Texts:
    """Strings as a UTF-8 bytes array, which numpy stores without pickling."""
    return np.array([text.encode() for text in texts], dtype=np.bytes_)


def save_index(path: Path, index: SceneIndex, key: str) -> None:
    """Write the arrays and the key of their sources, atomically: the file is complete or absent.

    Raises:
        OSError: the folder cannot be written.
    """
    with whole_file(path) as file:
        np.savez(file, key=text_array([key]), **{name: getattr(index, name) for name in _NAMES})


def read_index(path: Path, key: str) -> SceneIndex | None:
    """The saved arrays, or None when the file is absent, damaged, or made from other sources.

    The index can always be made again, so damage is no error; the archive's checksums reveal it.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if archive["key"].tolist() != [key.encode()]:
                return None
            return SceneIndex(**{name: archive[name] for name in _NAMES})
    except _STALE:
        return None
