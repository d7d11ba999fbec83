"""The reader of a cache. It trusts receipts only: what has no receipt is refused by name, never read as zeros.

Opening reads two files (``zarr.json``, ``frames.parquet``) and lists one folder; it imports neither zarr nor torch.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cache.cell_view import cells_of
from cache.fidelity_file import read_fidelity
from cache.frame_index_file import load_frames
from cache.group import CacheGroup, read_group
from cache.layout import CacheLayout
from cache.parameters_file import read_parameters
from cache.quantise import decode
from cache.receipts import Receipt, read_receipt
from cache.remote_file import remote_root
from cache.shard_file import ShardFile, check_shard
from cache.storage import AnyLayout
from cache.training_needs import TrainingNeeds, refuse_other_training, shortened
from schemas.errors import CacheError
from schemas.features import StoredArray
from schemas.fidelity import Fidelity
from schemas.manifest import Manifest


class Cache:
    """A cache as it was when it was opened: scenes finished later are not seen. Safe to use from threads.

    Attributes:
        path: the cache folder, local or remote.
        manifest: who made it, from what, in which form.
        frames: rows in ``FRAME_SCHEMA`` of all cached frames, by scene in the order of the scene axis, then by step.
        scene_names: the cached scenes, in that order.
    """

    def __init__(self, layout: AnyLayout, group: CacheGroup, frames: pa.Table) -> None:
        self.path = layout.root
        self.manifest: Manifest = group.manifest
        self.frames = frames
        self.scene_names: tuple[str, ...] = tuple(frames["scene_name"].unique().to_pylist())
        self._layout = layout
        self._group = group
        self._receipts: dict[str, Receipt] = {}
        self._shards: dict[tuple[str, str], ShardFile] = {}

    @property
    def all_scene_names(self) -> tuple[str, ...]:
        """Every scene that has a place in the cache, cached yet or not, in the order of the scene axis."""
        return tuple(slot.name for slot in self._group.slots)

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """(scene, step): whether the frame is cached, over every scene that has a place."""
        present = set(self.scene_names)
        lengths = [slot.length if slot.name in present else 0 for slot in self._group.slots]
        return np.less.outer(np.arange(self._group.step_axis), lengths).T

    @property
    def arrays(self) -> Mapping[str, StoredArray]:
        """The stored arrays by name: what ``shard`` can be asked for."""
        return self._group.arrays

    def read(self, sample_token: str, feature_name: str) -> NDArray[np.float32]:
        """One feature of one frame, verified and dequantised.

        Returns:
            float32 in the shape of the feature's spec.

        Raises:
            CacheError: the frame or the feature is not in the cache, or the file is damaged.
        """
        self.require_features([feature_name])
        return self.read_step(*self.place(sample_token), feature_name)

    def read_step(self, scene_name: str, step: int, feature_name: str) -> NDArray[np.float32]:
        """As ``read``, for a frame named by its place."""
        spec = self.manifest.feature(feature_name)
        stored = {
            array.name: self.shard(scene_name, array.name).read(step) for array in spec.stored(self.manifest.tier)
        }
        return decode(spec, stored, self.manifest.tier)

    def read_cells(
        self, sample_token: str, feature_name: str, cells: NDArray[Any], *, verify: bool = False
    ) -> NDArray[np.float32]:
        """Some BEV cells of one feature of one frame, dequantised; a fraction of a whole frame's time.

        **The values are not verified** unless asked for: checksums cover whole frames. (Scales and offsets are, and so
        is everything in the tier ``archive``, whose frames are read and decoded as a whole.)

        Args:
            sample_token: the frame.
            feature_name: a feature whose dimensions begin with (y, x).
            cells: (n, 2) integers: row and column, in any order, repeats allowed.
            verify: read the whole frame and check it, which takes as long as ``read``.

        Returns:
            ``(n, ...)`` float32 in the order of ``cells``, with the feature's dimensions after (y, x).

        Raises:
            CacheError: as ``read``; or a cell is outside the grid, or the feature is no map.
        """
        self.require_features([feature_name])
        spec = self.manifest.feature(feature_name)
        return cells_of(self, self.place(sample_token), spec, cells, verify=verify)

    def place(self, sample_token: str) -> tuple[str, int]:
        """Scene name and step of a frame.

        Raises:
            CacheError: it is not in the cache.
        """
        if sample_token not in self._places:
            raise CacheError(
                f"no frame with sample_token {sample_token} in the cache {self.path}, which holds "
                f"{self.frames.num_rows} frames of {len(self.scene_names)} scenes of split "
                f"{self.manifest.dataset.split}; cache its scene with make cache-teacher"
            )
        return self._places[sample_token]

    def dask(self, array_name: str) -> Any:
        """One stored array, or ``valid``, as a ``dask.array.Array`` over (scene, step, ...); a chunk is a frame.

        The numbers are as stored (int8 with their scales beside them); fill values where nothing is cached. Slice
        before computing with it. For floats, ``xarray`` and its ``.chunk()``.

        Raises:
            CacheError: there is no such array.
        """
        from cache.dask_view import dask_array  # noqa: PLC0415  opening a cache does not import dask

        return dask_array(self, array_name)

    def xarray(self) -> Any:
        """All features as an ``xarray.Dataset``, dequantised to float32 as they are indexed.

        Selecting costs nothing; asking for values reads and verifies the frames selected and no others. What is not
        cached is NaN, and ``valid`` is False there.
        """
        from cache.xarray_view import dataset_of  # noqa: PLC0415  opening a cache does not import xarray

        return dataset_of(self)

    def shard(self, scene_name: str, array_name: str) -> ShardFile:
        """What a stream needs to read one scene of one array: file, offsets, checksums. Checked once, then kept.

        Raises:
            CacheError: the scene or the array is not in the cache, or the file does not match the receipt.
        """
        key = (scene_name, array_name)
        if key not in self._shards:  # two threads may both look it up: they find the same
            self._shards[key] = self._open_shard(scene_name, array_name)
        return self._shards[key]

    def _open_shard(self, scene_name: str, array_name: str) -> ShardFile:
        self.require_scenes([scene_name])
        self.require_array(array_name)
        array = self.arrays[array_name]
        contents = self._receipt(scene_name).shards[array_name]
        shard = ShardFile(
            path=self._layout.shard(array_name, self._group.scene_indices[scene_name], 2 + len(array.shape)),
            scene_name=scene_name,
            array=array,
            compressed=self._group.compressed,
            offsets=contents.offsets,
            nbytes=contents.nbytes,
            crc32c=contents.crc32c,
        )
        check_shard(shard, contents, self._group.step_axis)
        return shard

    def made_with(self, scene_name: str) -> Mapping[str, str]:
        """How a scene was made, as its writer told it: program version, device and the like.

        Raises:
            CacheError: the scene is not in the cache, or its receipt is damaged.
        """
        self.require_scenes([scene_name])
        return self._receipt(scene_name).made_with

    def parameters(self) -> dict[str, NDArray[Any]]:
        """The teacher's parameters that a student may inherit, by name.

        Raises:
            CacheError: the cache holds none, or the file is damaged.
        """
        return read_parameters(self._layout, self._group)

    def fidelity(self) -> Fidelity | None:
        """How far the cached numbers were from the teacher's floats when the cache was filled; None if not measured.

        Raises:
            CacheError: the file is damaged, or another cache's.
        """
        return read_fidelity(self._layout, self._group)

    def require_features(self, names: Sequence[str]) -> None:
        """Refuse when a feature is not in the cache.

        Raises:
            CacheError: names what is missing and the command that makes a cache with it.
        """
        present = [spec.name for spec in self.manifest.features]
        missing = [name for name in names if name not in present]
        if missing:
            wanted = ",".join([*present, *missing])
            raise CacheError(
                f"the cache {self.path} lacks the features {', '.join(missing)}; it holds {', '.join(present)}. "
                f'Make one that has them: make cache-teacher CACHE={self.path}-2 ARGS="--arrays {wanted}"'
            )

    def require_array(self, name: str) -> None:
        """Refuse when a stored array is not in the cache.

        Raises:
            CacheError: tells which there are.
        """
        if name not in self.arrays:
            raise CacheError(f"no array {name} in the cache {self.path}, which holds {sorted(self.arrays)}")

    def require_scenes(self, names: Sequence[str]) -> None:
        """Refuse when a scene is not in the cache: every Zarr library would read it as fill values, without an error.

        Raises:
            CacheError: names the absent scenes and the command that adds them.
        """
        foreign = [name for name in names if name not in self._group.scene_indices]
        if foreign:
            raise CacheError(
                f"the cache {self.path} was made for split {self.manifest.dataset.split} of "
                f"{self.manifest.dataset.version} and has no place for the scenes {shortened(foreign)}; "
                "choose the cache of their split with CACHE=..., or fewer scenes with --scenes"
            )
        present = set(self.scene_names)
        absent = [name for name in names if name not in present]
        if absent:
            all_of_them = 1 < len(absent) == len(self.all_scene_names) - len(present)  # what cache-teacher adds unasked
            only = "" if all_of_them else f' ARGS="--scenes {",".join(absent)}"'
            raise CacheError(
                f"{len(absent)} of {len(names)} scenes are not in the cache {self.path}: {shortened(absent)}. "
                f"Add them: make cache-teacher CACHE={self.path}{only}, "
                "or ask for fewer with --scenes"
            )

    def compare_with(
        self,
        *,
        tables_sha256: str,
        class_names: Sequence[str],
        extent_m: Sequence[float],
        required: Mapping[str, tuple[str, ...]],
    ) -> None:
        """Refuse a cache that does not fit a training run.

        Args:
            tables_sha256: hash of the data set's tables that the student reads.
            class_names: the student's classes, in order.
            extent_m: the student's BEV extent, as ``BevGrid.extent_m``.
            required: feature name to the names of its dimensions after (scene, step), as the distillers need them.

        Raises:
            CacheError: tells every difference with both values, and what to do about it.
        """
        self.require_features(list(required))
        needs = TrainingNeeds(tables_sha256, tuple(class_names), tuple(extent_m), required)
        refuse_other_training(self.path, self.manifest, needs)

    def _receipt(self, scene_name: str) -> Receipt:
        if scene_name not in self._receipts:
            self._receipts[scene_name] = read_receipt(self._layout, self._group, scene_name)
        return self._receipts[scene_name]

    @cached_property
    def _places(self) -> dict[str, tuple[str, int]]:
        columns = [self.frames[name].to_pylist() for name in ("sample_token", "scene_name", "step")]
        return {token: (scene_name, step) for token, scene_name, step in zip(*columns, strict=True)}


def open_cache(path: Path | str) -> Cache:
    """Open a cache for reading.

    Args:
        path: the cache folder, or its URL: ``https://``, ``s3://`` and what else fsspec knows (extra ``s3``).

    Raises:
        CacheError: there is none, or it is foreign, from the future, edited by hand, damaged or not readable.
    """
    root = remote_root(path)
    layout: AnyLayout = CacheLayout(Path(path)) if root is None else CacheLayout(root)
    group = read_group(layout)
    if root is not None:
        (root / "zarr.json").read_range(0, 1)  # refuses a server that would send whole shards for every frame
    return Cache(layout, group, load_frames(layout, group))
