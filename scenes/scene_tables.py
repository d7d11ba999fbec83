"""A nuScenes version, ready to hand out frames. Imports neither nuscenes-devkit nor any image library."""

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scenes.box_frames import GlobalBoxes, to_lidar
from scenes.can_bus import can_bus_vector
from scenes.geometry import pose_matrix
from scenes.scene_index import SceneIndex
from scenes.splits import predefined_splits
from scenes.visibility import Sightings
from schemas.boxes import Boxes
from schemas.errors import DataError
from schemas.frames import Frame

_LIDAR = -1


class SceneTables:
    """Scenes, their frames in time order, and their splits.

    Frames are computed when asked for; the object holds flat arrays only and may be pickled or shared by threads.

    Attributes:
        data_root: the nuScenes directory; paths in frames are relative to it.
        version: e.g. ``v1.0-mini``.
    """

    def __init__(self, data_root: Path, version: str, index: SceneIndex) -> None:
        self.data_root = data_root
        self.version = version
        self._index = index
        self._scene_numbers = {name.decode(): number for number, name in enumerate(index.scene_name)}

    @cached_property
    def tables_sha256(self) -> str:
        """Hash (hex) of everything that frames are made of, independent of row order and of where the data lies."""
        return self._index.sha256()

    @property
    def has_labels(self) -> bool:
        """Whether the version has annotations; v1.0-test has none."""
        return bool(self._index.has_labels)

    @property
    def all_scene_names(self) -> tuple[str, ...]:
        """Every scene of the tables, in name order, whatever its split."""
        return tuple(self._scene_numbers)

    @property
    def split_sizes(self) -> dict[str, int]:
        """Number of scenes present in the tables, for each split that goes with the version."""
        sizes = self._index.split_has_scene.sum(axis=1).tolist()
        return {name.decode(): size for name, size in zip(self._index.split_name, sizes, strict=True)}

    def scene_names(self, split: str) -> tuple[str, ...]:
        """The split's scenes that are present in the tables, in name order.

        Raises:
            DataError: the version has no such split, or the tables hold none of its scenes.
        """
        sizes = self.split_sizes
        if not sizes.get(split):
            present = ", ".join(f"{name} ({size} scenes)" for name, size in sizes.items() if size) or "none"
            reason = "does not belong to" if split not in sizes else "has none of its scenes in"
            raise DataError(
                f"split {split!r} {reason} {self.version} in {self.data_root}: available are {present}. "
                f"Give --split one of them, another --version, or write your own into {self.version}/splits.json."
            )
        present_scenes = self._index.split_has_scene[list(sizes).index(split)]
        return tuple(name.decode() for name in self._index.scene_name[present_scenes])

    def is_predefined(self, split: str) -> bool:
        """Whether the split is one of the devkit's own, rather than of ``splits.json``."""
        return split in predefined_splits(self.version)

    def scene_length(self, scene_name: str) -> int:
        """Number of frames of a scene.

        Raises:
            DataError: no such scene.
        """
        return len(self.sample_tokens(scene_name))

    def scene_token(self, scene_name: str) -> str:
        """Token of a scene.

        Raises:
            DataError: no such scene.
        """
        token: bytes = self._index.scene_token[self._number_of(scene_name)]
        return token.decode()

    def sample_tokens(self, scene_name: str) -> tuple[str, ...]:
        """Sample tokens of a scene in time order.

        Raises:
            DataError: no such scene.
        """
        return tuple(token.decode() for token in self._index.sample_token[self._rows_of(scene_name)])

    def frames(self, scene_name: str) -> tuple[Frame, ...]:
        """All frames of a scene in time order.

        Raises:
            DataError: no such scene.
        """
        return self._frames(self._rows_of(scene_name))

    def frame(self, sample_token: str) -> Frame:
        """The frame of one sample.

        Raises:
            DataError: no such sample.
        """
        row = self._row_of(sample_token)
        return self._frames(slice(row, row + 1))[0]

    def sightings(self, sample_token: str) -> Sightings:
        """How far the annotated objects of one sample are seen.

        Raises:
            DataError: no such sample.
        """
        row = self._row_of(sample_token)
        chosen = slice(*self._index.box_start[row : row + 2].tolist())
        return Sightings(self._index.box_visibility[chosen], self._index.box_unseen_keyframes[chosen])

    @cached_property
    def _sample_rows(self) -> dict[str, int]:
        return {token.decode(): row for row, token in enumerate(self._index.sample_token)}

    def _row_of(self, sample_token: str) -> int:
        row = self._sample_rows.get(sample_token)
        if row is None:
            raise DataError(
                f"sample {sample_token!r} is not among the {len(self._sample_rows)} samples of {self.version} in "
                f"{self.data_root}: give the --data and --version that the sample was taken from."
            )
        return row

    def _number_of(self, scene_name: str) -> int:
        number = self._scene_numbers.get(scene_name)
        if number is None:
            some = ", ".join(list(self._scene_numbers)[:5])
            raise DataError(
                f"scene {scene_name!r} is not among the {len(self._scene_numbers)} scenes of {self.version} in "
                f"{self.data_root} ({some}, ...): check --scenes and --version."
            )
        return number

    def _rows_of(self, scene_name: str) -> slice:
        number = self._number_of(scene_name)
        start, stop = self._index.scene_start[number : number + 2].tolist()
        return slice(start, stop)

    def _frames(self, rows: slice) -> tuple[Frame, ...]:
        """Frames of consecutive rows of one scene."""
        index = self._index
        scene = int(np.searchsorted(index.scene_start, rows.start, side="right")) - 1
        ego_from_sensor = pose_matrix(index.sensor_translation_m[rows], index.sensor_rotation_wxyz[rows])
        global_from_ego = pose_matrix(index.ego_translation_m[rows], index.ego_rotation_wxyz[rows])
        global_from_sensor = global_from_ego @ ego_from_sensor
        lidar_from_global = np.linalg.inv(global_from_sensor[:, _LIDAR])
        lidar_from_camera = lidar_from_global[:, None] @ global_from_sensor[:, :_LIDAR]
        can_bus = can_bus_vector(
            index.ego_translation_m[rows, _LIDAR], index.ego_rotation_wxyz[rows, _LIDAR], index.can_bus_motion[rows]
        )
        return tuple(
            Frame(
                scene_name=index.scene_name[scene].decode(),
                scene_token=index.scene_token[scene].decode(),
                sample_token=index.sample_token[row].decode(),
                step=row - int(index.scene_start[scene]),
                timestamp_us=int(index.timestamp_us[row]),
                camera_paths=tuple(path.decode() for path in index.sensor_path[row, :_LIDAR]),
                camera_size_wh=index.camera_size_wh[row].copy(),
                intrinsics=index.intrinsics[row].copy(),
                lidar_from_camera=lidar_from_camera[number],
                global_from_lidar=global_from_sensor[number, _LIDAR],
                global_from_ego=global_from_ego[number, _LIDAR],
                can_bus=can_bus[number],
                has_can_bus=bool(index.has_can_bus[row]),
                boxes=self._boxes(row, lidar_from_global[number]) if self.has_labels else None,
                lidar_path=index.sensor_path[row, _LIDAR].decode(),
            )
            for number, row in enumerate(range(rows.start, rows.stop))
        )

    def _boxes(self, row: int, lidar_from_global: NDArray[np.float64]) -> Boxes:
        index = self._index
        chosen = slice(*index.box_start[row : row + 2].tolist())
        boxes = GlobalBoxes(
            translation_m=index.box_translation_m[chosen],
            size_wlh_m=index.box_size_wlh_m[chosen],
            rotation_wxyz=index.box_rotation_wxyz[chosen],
            velocity_mps=index.box_velocity_mps[chosen],
            labels=index.box_label[chosen],
        )
        return to_lidar(boxes, lidar_from_global)
