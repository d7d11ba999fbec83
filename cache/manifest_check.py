"""The comparison of two manifests, for people: every hashed field that differs, with both values."""

import json
from pathlib import Path
from typing import Any

from schemas.errors import CacheError
from schemas.manifest import Manifest, differing_fields


def refuse_other_manifest(path: Path, ours: Manifest, theirs: Manifest, remedy: str) -> None:
    """Refuse a cache that was made by another teacher, from other data, or in another form.

    Args:
        path: the cache folder.
        ours: what would be made now.
        theirs: what the cache states.
        remedy: what to do about a difference: the end of the message.

    Raises:
        CacheError: every differing field, the teacher's architecture among them, with both values.
    """
    if not differing_fields(ours.hashed_fields(), theirs.hashed_fields()):
        return
    differing = differing_fields(readable_fields(ours), readable_fields(theirs))
    lines = [f"  {name}: {theirs_value} in the cache, {our_value} now" for name, our_value, theirs_value in differing]
    raise CacheError(
        f"the cache {path} was made differently, and a cache holds one kind of feature only:\n"
        + "\n".join(lines)
        + f"\n{remedy}"
    )


def readable_fields(manifest: Manifest) -> dict[str, Any]:
    """The hashed fields, the teacher's architecture opened up so that a difference in it is told by its name."""
    fields = manifest.hashed_fields()
    try:
        fields["teacher"]["architecture"] = json.loads(manifest.teacher.architecture)
    except ValueError:  # a teacher of one's own may describe itself in words
        return fields
    return fields
