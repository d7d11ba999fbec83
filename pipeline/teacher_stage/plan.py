"""The price of a cache before it is made, in tables; and the refusal, with what would fit, of one that does not."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.layout import CacheLayout
from cache.shard_bytes import CHECKSUM_BYTES, raw_nbytes
from pipeline.console import console, print_table
from pipeline.teacher_stage.cost import ARCHIVE_SHARE, CacheOrder, cost_of
from pipeline.teacher_stage.ways_to_fit import ways_to_fit
from schemas.errors import CacheError
from schemas.features import TIERS, Tier
from schemas.manifest import Manifest


@dataclass(frozen=True)
class Plan:
    """What a run of the teacher stage will take.

    Attributes:
        order: what is to be cached now.
        path: the cache.
        exists: whether there is a cache at ``path`` already, whose form can no longer change.
        cached_lengths: frames of each scene asked for that the cache holds already.
        free_bytes: on its disk.
        archive_share: what zstd leaves of the values, where it was measured on this teacher's own frames.
        counted: how the numbers of frames and scenes are known, in words.
    """

    order: CacheOrder
    path: Path
    exists: bool
    cached_lengths: tuple[int, ...]
    free_bytes: int
    archive_share: float | None = None
    counted: str = "counted"

    @property
    def bytes_needed(self) -> int:
        """On disk, in the tier that was chosen; of ``archive`` the most."""
        return self.bytes_in(self.order.tier)[1]

    @property
    def fits(self) -> bool:
        """Whether the disk can hold it."""
        return self.bytes_needed <= self.free_bytes

    def bytes_in(self, tier: Tier) -> tuple[int, int]:
        """Least and most bytes that the order takes in a tier."""
        measured = self.archive_share
        least, most = ARCHIVE_SHARE if measured is None else (measured, measured)
        order = self.order.with_tier(tier)
        return cost_of(order, least).total, cost_of(order, most).total


def make_plan(manifest: Manifest, scene_lengths: Sequence[int], path: Path, cached_lengths: Sequence[int] = ()) -> Plan:
    """The price of some scenes of a cache. Writes nothing.

    Args:
        manifest: of the cache.
        scene_lengths: frames of each scene that is to be cached now, in the order of the scene axis.
        path: the cache, which need not exist; nor need its folder.
        cached_lengths: frames of each scene asked for that the cache holds already.
    """
    step_axis = max((*scene_lengths, *cached_lengths), default=0)
    order = CacheOrder(manifest.features, manifest.tier, manifest.grid, tuple(scene_lengths), step_axis)
    return plan_of(order, path, cached_lengths)


def plan_of(order: CacheOrder, path: Path, cached_lengths: Sequence[int] = ()) -> Plan:
    """The price of an order, given the disk that ``path`` is on."""
    return Plan(order, path, CacheLayout(path).group_document.exists(), tuple(cached_lengths), free_bytes_at(path))


def free_bytes_at(path: Path) -> int:
    """Free bytes of the disk that a folder is on, or will be on."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def require_space(plan: Plan) -> None:
    """Refuse what the disk cannot hold.

    Raises:
        CacheError: it cannot; every option that would fit is named with its bytes.
    """
    if plan.fits:
        return
    order = plan.order
    renewed = (*plan.cached_lengths, *order.scene_lengths) if plan.exists else order.scene_lengths
    ways = ways_to_fit(order, renewed, plan.free_bytes)
    new_cache = f" CACHE={plan.path}-2 (the cache there keeps its form)" if plan.exists else ""
    lines = [f"  {way.options}{new_cache if way.changes_form else ''}: {size_text(way.bytes)}" for way in ways]
    raise CacheError(
        f"the cache {plan.path} needs {size_text(plan.bytes_needed)} for {order.frames} frames in "
        f"{len(order.scene_lengths)} scenes, and its disk has {size_text(plan.free_bytes)} free. "
        + ("What fits there:\n" + "\n".join(lines) + "\nOr" if lines else "No option makes it fit there:")
        + f" choose a disk with {size_text(plan.bytes_needed)} free with CACHE=..."
    )


def print_price(plan: Plan) -> None:
    """The price in one line."""
    order = plan.order
    console.print(
        f"{order.frames} frames of {size_text(order.frame_bytes)}: {size_text(plan.bytes_needed)} of "
        f"{size_text(plan.free_bytes)} free",
        soft_wrap=True,
    )


def print_plan(plan: Plan) -> None:
    """The price in tables: array by array, in each tier, and of the whole cache."""
    _print_arrays(plan.order)
    _print_tiers(plan)
    _print_disk(plan)


def size_text(count: int) -> str:
    """A number of bytes for people, e.g. ``521 GB``."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if count >= 0.1 * unit:
            return f"{count / unit:.3g} {name}" if count < 999.5 * unit else f"{count / unit:,.0f} {name}"
    return f"{count / 1e3:.3g} kB"


def _print_arrays(order: CacheOrder) -> None:
    rows = []
    for array in order.arrays:
        size = raw_nbytes(array) + CHECKSUM_BYTES
        shape = " × ".join(f"{dim} {size}" for dim, size in zip(array.dims, array.shape, strict=True))
        rows.append((array.name, shape, array.dtype, f"{size:,}", size_text(size * order.frames)))
    rows.append(("all", "", "", f"{order.frame_bytes:,}", size_text(order.frame_bytes * order.frames)))
    title = f"Arrays, tier {order.tier}{' (before compression)' if order.tier == 'archive' else ''}"
    print_table(title, ("array", "one frame", "dtype", "bytes a frame", f"{order.frames:,} frames"), rows)


def _print_tiers(plan: Plan) -> None:
    rows = []
    for tier in TIERS:
        least, most = plan.bytes_in(tier)
        size = size_text(most) if least == most else f"{size_text(least)} to {size_text(most)}"
        fits = "yes" if most <= plan.free_bytes else "perhaps" if least <= plan.free_bytes else "no"
        rows.append((f"{tier} (chosen)" if tier == plan.order.tier else tier, size, fits, _tier_note(plan, tier)))
    print_table("Tiers", ("tier", "on disk", "fits", ""), rows)


def _tier_note(plan: Plan, tier: Tier) -> str:
    if tier == "archive":
        if plan.archive_share is not None:
            return f"zstd leaves {plan.archive_share:.0%}, measured on the timed frames; read 3 to 5 times slower"
        least, most = ARCHIVE_SHARE
        return f"assumed: zstd leaves {least:.0%} to {most:.0%}; read 3 to 5 times slower"
    return {"int8": "one scale and offset a channel and frame", "float16": "BEV features as they are"}[tier]


def _print_disk(plan: Plan) -> None:
    order = plan.order
    cost = cost_of(order, plan.archive_share or ARCHIVE_SHARE[1])
    computed = "computed" if order.tier != "archive" else "at most" if plan.archive_share is None else "estimated"
    print_table(
        f"Cache {plan.path}",
        ("", "", "known how"),
        [
            ("to be cached", f"{order.frames:,} frames in {len(order.scene_lengths):,} scenes", plan.counted),
            ("there already", f"{sum(plan.cached_lengths):,} frames in {len(plan.cached_lengths):,} scenes", "counted"),
            ("values", size_text(cost.values), computed),
            ("checksums, shard indices", size_text(cost.checks), "computed"),
            ("receipts, frame index, metadata, parameters", size_text(cost.records), "estimated"),
            ("rounding to blocks of the file system", size_text(cost.padding), "estimated"),
            ("in all", size_text(cost.total), computed),
            ("free on its disk", size_text(plan.free_bytes), "measured"),
            ("files", f"{cost.files:,}", "computed"),
        ],
    )
