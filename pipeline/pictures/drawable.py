"""Which pictures a cache can give: a teacher of someone else's may have other features, or lack some."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from detectors.config import BOX_CODE_LENGTH
from schemas.boxes import CLASS_NAMES
from schemas.manifest import Manifest

PictureKind = Literal["bev", "boxes", "attention", "queries"]

_TEMPORAL_DIMS = ("y", "x", "head", "source", "point")
_NEEDED: dict[PictureKind, tuple[str, Mapping[str, tuple[str, ...]]]] = {
    "bev": ("the BEV feature as colours", {"bev": ("y", "x", "channel")}),
    "boxes": ("the teacher's boxes", {"query_logits": ("query", "class"), "query_boxes": ("query", "code")}),
    "attention": (
        "where temporal attention looks",
        {"temporal_offsets": (*_TEMPORAL_DIMS, "axis"), "temporal_weights": _TEMPORAL_DIMS},
    ),
    "queries": (
        "query positions",
        {"query_positions": ("reference", "query", "xyz"), "query_logits": ("query", "class")},
    ),
}
"""Kind of picture to what it shows, and the features it needs with their dimensions."""


@dataclass(frozen=True)
class Drawable:
    """What can be drawn of a cache, and a line for each picture that cannot."""

    kinds: frozenset[PictureKind]
    reasons: tuple[str, ...]


def drawable(manifest: Manifest) -> Drawable:
    """Compare the features of a cache with what each kind of picture needs."""
    found = {kind: _reason(manifest, needed) for kind, (_, needed) in _NEEDED.items()}
    if not found["boxes"]:
        found["boxes"] = _box_reason(manifest)
    return Drawable(
        frozenset(kind for kind, reason in found.items() if not reason),
        tuple(f"No picture of {_NEEDED[kind][0]}: {reason}" for kind, reason in found.items() if reason),
    )


def _reason(manifest: Manifest, needed: Mapping[str, tuple[str, ...]]) -> str:
    """Why a picture cannot be drawn; empty when it can."""
    dims = {spec.name: spec.dims for spec in manifest.features}
    missing = [name for name in needed if name not in dims]
    if missing:
        every = ",".join([*dims, *missing])
        return (
            f"the cache lacks {' and '.join(missing)}; if its teacher has them, make another one with "
            f'make cache-teacher CACHE=... ARGS="--arrays {every}"'
        )
    other = [name for name, expected in needed.items() if dims[name] != expected]
    if other:
        name = other[0]
        return f"{name} has the dimensions {', '.join(dims[name])}, not {', '.join(needed[name])}"
    return ""


def _box_reason(manifest: Manifest) -> str:
    unknown = sorted(set(manifest.class_names) - set(CLASS_NAMES))
    if unknown:
        return f"{', '.join(unknown)} are no nuScenes detection classes"
    classes, code = manifest.feature("query_logits").shape[1], manifest.feature("query_boxes").shape[1]
    if classes != len(manifest.class_names):
        return f"query_logits has {classes} classes, the manifest {len(manifest.class_names)}"
    if code != BOX_CODE_LENGTH:
        return f"query_boxes has {code} numbers a box, not {BOX_CODE_LENGTH}"
    return ""
