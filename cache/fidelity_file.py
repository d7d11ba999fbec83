"""``fidelity.json``: how far the stored numbers were from the teacher's floats when the cache was filled."""

import json

from pydantic import ValidationError

from cache.durable_files import disk_errors, write_file
from cache.group import CacheGroup
from cache.layout import CacheLayout
from cache.scene_lock import exclusive_lock
from cache.storage import AnyLayout, read_whole
from schemas.errors import CacheError
from schemas.fidelity import Fidelity


def write_fidelity(layout: CacheLayout, group: CacheGroup, fidelity: Fidelity) -> None:
    """Write what was measured, replacing what is there as a whole.

    Raises:
        DiskError: the disk refused.
    """
    document = {"fingerprint": group.fingerprint, "fidelity": fidelity.model_dump(mode="json")}
    with disk_errors("writing the cache's fidelity", layout.fidelity), exclusive_lock(layout.index_lock):
        data = json.dumps(document, indent=1, allow_nan=False).encode()
        write_file(layout.fidelity, data, layout.workshop / "fidelity.partial")


def read_fidelity(layout: AnyLayout, group: CacheGroup) -> Fidelity | None:
    """What was measured; None when nothing was, or when a copy of the cache came without the file.

    Raises:
        CacheError: the file is damaged, changed by hand, or another cache's.
    """
    path = layout.fidelity
    data = read_whole(path, "reading the cache's fidelity")
    if data is None:
        return None
    try:
        document = json.loads(data)
        fingerprint = document["fingerprint"]
        fidelity = Fidelity.model_validate(document["fidelity"])
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise CacheError(f"{path} cannot be read: {_reason(error)}. {_REMEDY}") from error
    if fingerprint != group.fingerprint:
        raise CacheError(
            f"{path} belongs to another cache: expected fingerprint {group.fingerprint}, found {fingerprint}. {_REMEDY}"
        )
    return fidelity


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


_REMEDY = 'Remove it: nothing else depends on it, and make verify-cache ARGS="--live 8" measures anew'
