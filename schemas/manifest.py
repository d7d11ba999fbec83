"""The manifest of a cache: who made it, from what, in which form. Its fingerprint covers all that changes a number."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from schemas.bev_grid import BevGrid
from schemas.features import FeatureSpec, Tier
from schemas.preprocessing import Preprocessing

FORMAT_VERSION = 1
NUMERICS = 1
"""Raised whenever our own arithmetic changes what a teacher computes or how it is stored."""

_RECORDED_ONLY = frozenset({"program_version", "device"})


class TeacherIdentity(BaseModel):
    """Which network made the features.

    Attributes:
        name: catalogue name, or ``FILE.py:function``.
        architecture: canonical JSON of the detector's configuration.
        weights_sha256: ``weights_sha256`` of its parameters and buffers.
        untrained: True for a dry run with seeded random weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    architecture: str
    weights_sha256: str
    untrained: bool


class DatasetIdentity(BaseModel):
    """Which frames the features are of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    split: str
    tables_sha256: str


class Manifest(BaseModel):
    """Everything about a cache that is one value for all its frames; stored in the Zarr group's attributes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    numerics: int = NUMERICS
    teacher: TeacherIdentity
    preprocessing: Preprocessing
    history_mode: Literal["stream"] = "stream"
    precision: Literal["float32", "bfloat16", "float16"]
    dataset: DatasetIdentity
    features: tuple[FeatureSpec, ...]
    tier: Tier
    class_names: tuple[str, ...]
    grid: BevGrid
    program_version: str
    device: str

    def hashed_fields(self) -> dict[str, Any]:
        """All fields that the fingerprint covers, as plain JSON values."""
        return self.model_dump(mode="json", exclude=set(_RECORDED_ONLY))

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the canonical JSON of ``hashed_fields``."""
        canonical = json.dumps(self.hashed_fields(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def feature(self, name: str) -> FeatureSpec:
        """The spec of one cached feature.

        Raises:
            KeyError: the cache holds no such feature.
        """
        for spec in self.features:
            if spec.name == name:
                return spec
        raise KeyError(name)


def differing_fields(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Leaf by leaf, where two manifests' ``hashed_fields`` differ: ``(dotted name, ours, theirs)``, sorted by name."""
    left, right = _leaves("", ours), _leaves("", theirs)
    absent = "(absent)"
    return [
        (name, left.get(name, absent), right.get(name, absent))
        for name in sorted(left.keys() | right.keys())
        if left.get(name, absent) != right.get(name, absent)
    ]


def weights_sha256(named_arrays: Iterable[tuple[str, NDArray[Any]]]) -> str:
    """Hash of a network's weights: sorted names, dtypes, shapes and bytes, independent of any file format."""
    digest = hashlib.sha256()
    for name, array in sorted(named_arrays, key=lambda item: item[0]):
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _leaves(prefix: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        pairs: Iterable[tuple[str, Any]] = ((str(key), child) for key, child in value.items())
    elif isinstance(value, list | tuple) and any(isinstance(child, Mapping) for child in value):
        pairs = ((str(child.get("name", number)), child) for number, child in enumerate(value))
    else:
        return {prefix: list(value) if isinstance(value, tuple) else value}
    return {name: leaf for key, child in pairs for name, leaf in _leaves(f"{prefix}.{key}".lstrip("."), child).items()}
