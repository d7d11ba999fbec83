"""Whether a cache fits a training run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cache.storage import AnyFile
from schemas.errors import CacheError
from schemas.manifest import Manifest


@dataclass(frozen=True)
class TrainingNeeds:
    """What a student brings along; ``Cache.compare_with`` describes the fields."""

    tables_sha256: str
    class_names: tuple[str, ...]
    extent_m: tuple[float, ...]
    required: Mapping[str, tuple[str, ...]]


def refuse_other_training(path: AnyFile, manifest: Manifest, needs: TrainingNeeds) -> None:
    """Compare a cache that has the required features with what a training run needs.

    Raises:
        CacheError: tells every difference with both values, and what to do about it.
    """
    pairs: list[tuple[str, Any, Any, str]] = [
        ("dataset tables (sha256)", manifest.dataset.tables_sha256, needs.tables_sha256, "DATA= and VERSION="),
        ("class order", list(manifest.class_names), list(needs.class_names), "RECIPE="),
        ("BEV extent in metres", list(manifest.grid.extent_m), list(needs.extent_m), "RECIPE="),
    ]
    for name, dims in needs.required.items():
        pairs.append((f"dimensions of {name}", list(manifest.feature(name).dims), list(dims), "CACHE="))
    differing = [pair for pair in pairs if pair[1] != pair[2]]
    if differing:
        lines = [f"  {what}: {ours} in the cache, {theirs} here (see {fix})" for what, ours, theirs, fix in differing]
        raise CacheError(
            f"the cache {path} does not fit this training run:\n" + "\n".join(lines) + "\n"
            f"It was made from {manifest.dataset.name} {manifest.dataset.version}; give the options it "
            f"was made with, or make one that fits: make cache-teacher CACHE={path}-2"
        )


def shortened(names: Sequence[str]) -> str:
    """A list of names for a message; the first few of a long one."""
    shown = ", ".join(names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"
