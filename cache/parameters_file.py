"""``teacher.safetensors``: the teacher's parameters that a student may inherit, so no teacher is built for them."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from cache.damage import damaged_file
from cache.durable_files import disk_errors, write_file
from cache.group import CacheGroup
from cache.layout import CacheLayout
from cache.scene_lock import exclusive_lock
from cache.storage import AnyLayout, read_whole
from schemas.errors import CacheError
from schemas.manifest import weights_sha256

_WHOSE = "the teacher's parameters"
_LENGTH_BYTES = 8
"""A safetensors file begins with the length of its JSON header."""


def write_parameters(layout: CacheLayout, group: CacheGroup, named: Mapping[str, NDArray[Any]]) -> None:
    """Write the parameters, replacing what is there as a whole.

    Raises:
        CacheError: the disk refused.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in named.items()}
    facts = {"fingerprint": group.fingerprint, "sha256": weights_sha256(arrays.items())}
    with disk_errors("writing the teacher's parameters", layout.parameters), exclusive_lock(layout.index_lock):
        data = _canonical(safetensors_numpy.save(arrays, metadata=facts))
        write_file(layout.parameters, data, layout.workshop / "parameters.partial")


def _canonical(data: bytes) -> bytes:
    """The same file with its facts in sorted order: safetensors writes them in another order every time."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    header = json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)  # tensors start aligned
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text + data[_LENGTH_BYTES + length :]


def read_parameters(layout: AnyLayout, group: CacheGroup) -> dict[str, NDArray[Any]]:
    """The parameters by name.

    Raises:
        CacheError: the file is absent, damaged, or another cache's.
    """
    path = layout.parameters
    data = read_whole(path, "reading the teacher's parameters")
    if data is None:
        raise CacheError(
            f"{path} is missing: this cache holds no teacher parameters to inherit; "
            "repeat the make cache-teacher command that filled the cache to add them"
        )
    try:
        arrays: dict[str, NDArray[Any]] = safetensors_numpy.load(data)
        facts = _metadata(data)
    except (SafetensorError, ValueError) as error:
        raise damaged_file(_WHOSE, f"the file cannot be read: {error}", path, layout.root) from error
    if facts.get("fingerprint") != group.fingerprint:
        what = f"of another cache: expected fingerprint {group.fingerprint}, found {facts.get('fingerprint')}"
        raise damaged_file(_WHOSE, what, path, layout.root)
    if facts.get("sha256") != weights_sha256(arrays.items()):
        raise damaged_file(_WHOSE, "the content does not have the sha256 it states", path, layout.root)
    return arrays


def _metadata(data: bytes) -> dict[str, str]:
    """The facts at the start of a safetensors file: a length, then JSON. Its library reads them from local files."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return dict(header.get("__metadata__") or {})
