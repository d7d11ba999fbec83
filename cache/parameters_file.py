"""``teacher.safetensors``: the teacher's parameters that a student may inherit, so no teacher is built for them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors import numpy as safetensors_numpy

from cache.durable_files import disk_errors, write_file
from cache.group import CacheGroup
from cache.layout import CacheLayout
from cache.scene_lock import exclusive_lock
from schemas.errors import CacheError
from schemas.manifest import weights_sha256


def write_parameters(layout: CacheLayout, group: CacheGroup, named: Mapping[str, NDArray[Any]]) -> None:
    """Write the parameters, replacing what is there as a whole.

    Raises:
        CacheError: the disk refused.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in named.items()}
    facts = {"fingerprint": group.fingerprint, "sha256": weights_sha256(arrays.items())}
    with disk_errors("writing the teacher's parameters", layout.parameters), exclusive_lock(layout.index_lock):
        data = safetensors_numpy.save(arrays, metadata=facts)
        write_file(layout.parameters, data, layout.workshop / "parameters.partial")


def read_parameters(layout: CacheLayout, group: CacheGroup) -> dict[str, NDArray[Any]]:
    """The parameters by name.

    Raises:
        CacheError: the file is absent, damaged, or another cache's.
    """
    path = layout.parameters
    with disk_errors("reading the teacher's parameters", path):
        if not path.exists():
            raise CacheError(
                f"{path} is missing: this cache holds no teacher parameters to inherit; "
                "repeat the make cache-teacher command that filled the cache to add them"
            )
        try:
            with safe_open(path, framework="numpy") as file:
                facts = file.metadata() or {}
                arrays: dict[str, NDArray[Any]] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise CacheError(f"{path} cannot be read: {error}. {_REMEDY}") from error
    if facts.get("fingerprint") != group.fingerprint:
        raise CacheError(
            f"{path} belongs to another cache: expected fingerprint {group.fingerprint}, "
            f"found {facts.get('fingerprint')}. {_REMEDY}"
        )
    if facts.get("sha256") != weights_sha256(arrays.items()):
        raise CacheError(f"{path} is damaged: its content does not have the sha256 it states. {_REMEDY}")
    return arrays


_REMEDY = "Remove it and repeat the make cache-teacher command that filled the cache"
