"""What a teacher gives per frame, and how each array stands in the store. Store code knows no array by name.

| encoding  | stored (after scene, step)                                                   | value                     |
|-----------|------------------------------------------------------------------------------|---------------------------|
| affine    | int8 −127..127 with float32 scale and offset over ``scale_dims``             | stored · scale + offset   |
| symmetric | int8 −127..127 with float32 scale over ``scale_dims``                        | stored · scale            |
| unit      | uint8 0..254                                                                 | stored / 254              |
| float16, float32 | as is                                                                 | stored                    |

In the tier ``float16`` an affine feature is stored as plain float16. Fill values (−128, 255, NaN) are never a datum.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, model_serializer, model_validator

from schemas.temporal_fusion import TemporalFusion

Encoding = Literal["affine", "symmetric", "unit", "float16", "float32"]
Tier = Literal["int8", "float16", "archive"]
TIERS: tuple[Tier, ...] = ("int8", "float16", "archive")

INT8_FILL = -128
INT8_LIMIT = 127
UNIT_FILL = 255
UNIT_LIMIT = 254
CHECKSUM_BYTES = 4


@dataclass(frozen=True)
class StoredArray:
    """One Zarr array of the store, without its leading (scene, step) dimensions."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    fill_value: float


class FeatureSpec(BaseModel):
    """One feature a teacher produces for every frame.

    Attributes:
        name: array name in the store, e.g. ``bev``.
        dims: names of the dimensions after (scene, step); a name has one size throughout a cache.
        shape: their sizes.
        encoding: how the values are stored (table above).
        scale_dims: for affine and symmetric, the dimensions that keep a scale of their own, in ``dims`` order.
        scale_name: name of the scale array; ``<name>_scale`` when empty. The offset array is ``<name>_offset``.
        units: physical unit of the value, in words.
        description: one sentence for people who open the store.
        fusion: for a feature that the teacher stage fuses from several frames, which and how; else None, and left out
            of what is written.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    encoding: Encoding
    scale_dims: tuple[str, ...] = ()
    scale_name: str = ""
    units: str = "1"
    description: str
    fusion: TemporalFusion | None = None

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: Callable[["FeatureSpec"], dict[str, Any]]) -> dict[str, Any]:
        """A feature of one frame is written as it was before there was fusion: fingerprints stay."""
        fields = handler(self)
        if self.fusion is None:
            fields.pop("fusion", None)
        return fields

    @model_validator(mode="after")
    def _check(self) -> "FeatureSpec":
        if len(self.dims) != len(self.shape) or len(set(self.dims)) != len(self.dims):
            raise ValueError(f"{self.name}: dims {self.dims} do not name the sizes {self.shape} one to one")
        if min(self.shape, default=0) < 1:
            raise ValueError(f"{self.name}: every size must be at least 1, got {self.shape}")
        scaled = self.encoding in ("affine", "symmetric")
        if scaled != bool(self.scale_dims) or [d for d in self.dims if d in self.scale_dims] != list(self.scale_dims):
            raise ValueError(f"{self.name}: encoding {self.encoding} does not go with scale_dims {self.scale_dims}")
        return self

    @property
    def scale_array(self) -> str:
        """Name of the array that holds the scales."""
        return self.scale_name or f"{self.name}_scale"

    @property
    def offset_array(self) -> str:
        """Name of the array that holds the offsets of an affine feature."""
        return f"{self.name}_offset"

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """Sizes of ``scale_dims``."""
        sizes = dict(zip(self.dims, self.shape, strict=True))
        return tuple(sizes[dim] for dim in self.scale_dims)

    def is_scaled(self, tier: Tier) -> bool:
        """Whether this tier stores the feature as integers with scales."""
        return self.encoding == "symmetric" or (self.encoding == "affine" and tier != "float16")

    def stored(self, tier: Tier) -> tuple[StoredArray, ...]:
        """The arrays this feature occupies in the store: the values first, then scale and offset."""
        nan = float("nan")
        if not self.is_scaled(tier):
            dtype = {"affine": "float16", "unit": "uint8"}.get(self.encoding, self.encoding)
            fill = float(UNIT_FILL) if self.encoding == "unit" else nan
            return (StoredArray(self.name, self.dims, self.shape, dtype, fill),)
        values = StoredArray(self.name, self.dims, self.shape, "int8", float(INT8_FILL))
        scale = StoredArray(self.scale_array, self.scale_dims, self.scale_shape, "float32", nan)
        if self.encoding == "symmetric":
            return values, scale
        return values, scale, StoredArray(self.offset_array, self.scale_dims, self.scale_shape, "float32", nan)


def frame_bytes(specs: Iterable[FeatureSpec], tier: Tier) -> int:
    """Bytes that one frame of these features takes in a store that does not compress, checksums included."""
    arrays = [array for spec in specs for array in spec.stored(tier)]
    return sum(math.prod(array.shape) * np.dtype(array.dtype).itemsize + CHECKSUM_BYTES for array in arrays)
