"""How many bytes and files a cache will take, computed from its feature specs and the lengths of its scenes.

Shards are computed to the byte; receipts, indices and metadata, a few kilobytes each, by a fitted line. Every file is
rounded up to whole file-system blocks, as ``du`` counts them.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cache.shard_bytes import CHECKSUM_BYTES, index_nbytes, raw_nbytes
from pipeline.teacher_stage.reduced_grid import reduced_spec
from schemas.bev_grid import BevGrid
from schemas.features import FeatureSpec, StoredArray, Tier

BLOCK_BYTES = 4096
"""Of most file systems."""

ARCHIVE_SHARE = (0.80, 0.93)
"""What zstd leaves of int8 BEV features, least and most; measured on stand-ins with the statistics of BEVFormer's."""

_RECEIPT = (4300, 920, 330, 24)  # bytes: a receipt, each array in it, each frame in it, each array of each frame
_INDEX = (8000, 20, 320)  # bytes of frames.parquet: the file, each scene, each frame
_GROUP = (3000, 95, 2600)  # bytes of the group's zarr.json: the file, each scene, each array
_ARRAY_DOCUMENT = 2000
_FILES_PER_SCENE = 3  # valid, receipt, lock; and a shard of each array
_LOCK_FILES = 2


@dataclass(frozen=True)
class CacheOrder:
    """A cache, or an addition to one, in numbers.

    Attributes:
        specs: the features to keep.
        tier: storage tier.
        grid: of the features on the ground.
        scene_lengths: frames of each scene to be cached.
        step_axis: length of the longest scene of the split.
        parameter_bytes: of the teacher's parameters stored beside the arrays.
    """

    specs: tuple[FeatureSpec, ...]
    tier: Tier
    grid: BevGrid
    scene_lengths: tuple[int, ...]
    step_axis: int
    parameter_bytes: int = 0

    @property
    def frames(self) -> int:
        """Frames to be cached."""
        return sum(self.scene_lengths)

    @property
    def arrays(self) -> tuple[StoredArray, ...]:
        """All stored arrays but ``valid``."""
        return tuple(array for spec in self.specs for array in spec.stored(self.tier))

    @property
    def frame_bytes(self) -> int:
        """Bytes of one uncompressed frame, checksums included."""
        return sum(raw_nbytes(array) + CHECKSUM_BYTES for array in self.arrays)

    def with_tier(self, tier: Tier) -> "CacheOrder":
        """The same frames in another tier."""
        return replace(self, tier=tier)

    def with_features(self, names: Sequence[str]) -> "CacheOrder":
        """The same frames with some of the features only."""
        return replace(self, specs=tuple(spec for spec in self.specs if spec.name in names))

    def with_grid(self, grid: BevGrid) -> "CacheOrder":
        """The same frames on a coarser grid."""
        return replace(self, grid=grid, specs=tuple(reduced_spec(spec, self.grid, grid) for spec in self.specs))

    def with_scenes(self, lengths: Sequence[int]) -> "CacheOrder":
        """Other scenes."""
        return replace(self, scene_lengths=tuple(lengths))


@dataclass(frozen=True)
class CacheCost:
    """What a cache takes on disk.

    Attributes:
        values: bytes of the arrays' values.
        checks: bytes of their checksums and shard indices.
        records: bytes of receipts, ``valid``, frame index, metadata and the teacher's parameters.
        padding: bytes lost to whole file-system blocks.
        files: number of files.
    """

    values: int
    checks: int
    records: int
    padding: int
    files: int

    @property
    def total(self) -> int:
        """All bytes."""
        return self.values + self.checks + self.records + self.padding


def cost_of(order: CacheOrder, archive_share: float = ARCHIVE_SHARE[1]) -> CacheCost:
    """What an order takes on disk.

    Args:
        order: the cache.
        archive_share: what compression leaves of quantised values in the tier ``archive``; other tiers do not compress.
    """
    arrays = [(raw_nbytes(array), _share(order, array, archive_share)) for array in order.arrays]
    values = checks = records = padding = 0
    for length, scenes in Counter(order.scene_lengths).items():
        for raw, share in arrays:
            payload = math.ceil(length * raw * share)
            check = length * CHECKSUM_BYTES + index_nbytes(order.step_axis)
            values, checks = values + scenes * payload, checks + scenes * check
            padding += scenes * _padding(payload + check)
        for record in (order.step_axis + CHECKSUM_BYTES, _receipt_bytes(len(arrays), length)):
            records, padding = records + scenes * record, padding + scenes * _padding(record)
    once = _whole_cache_records(order)
    files = len(order.scene_lengths) * (len(arrays) + _FILES_PER_SCENE) + len(once) + _LOCK_FILES
    return CacheCost(values, checks, records + sum(once), padding + sum(map(_padding, once)), files)


def is_quantised(array: StoredArray) -> bool:
    """Whether an array holds 8-bit integers; of floats compression leaves next to everything."""
    return array.dtype in ("int8", "uint8")


def scenes_that_fit(order: CacheOrder, free_bytes: int) -> int:
    """How many of the order's first scenes fit on a disk."""
    low, high = 0, len(order.scene_lengths)
    while low < high:
        middle = (low + high + 1) // 2
        fits = cost_of(order.with_scenes(order.scene_lengths[:middle])).total <= free_bytes
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def _share(order: CacheOrder, array: StoredArray, archive_share: float) -> float:
    return archive_share if order.tier == "archive" and is_quantised(array) else 1.0


def _whole_cache_records(order: CacheOrder) -> list[int]:
    """Sizes of the files that a cache has once: the group's and the arrays' metadata, frame index, parameters."""
    arrays, scenes = len(order.arrays) + 1, len(order.scene_lengths)
    group = _GROUP[0] + _GROUP[1] * scenes + _GROUP[2] * arrays
    index = _INDEX[0] + _INDEX[1] * scenes + _INDEX[2] * order.frames
    parameters = [order.parameter_bytes] if order.parameter_bytes else []
    return [group, index, *parameters, *[_ARRAY_DOCUMENT] * arrays]


def _receipt_bytes(arrays: int, frames: int) -> int:
    fixed, each_array, each_frame, each_value = _RECEIPT
    return fixed + each_array * arrays + each_frame * frames + each_value * arrays * frames


def _padding(size: int) -> int:
    return -size % BLOCK_BYTES
