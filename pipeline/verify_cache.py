"""``make verify-cache``: every promise of a cache checked against the disk, and what to do where one is broken."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from cache.verify import Verification, scenes_of, verify
from pipeline.console import Tracker, console
from pipeline.damage_table import print_damages


def verify_cache(cache_path: Path) -> int:
    """Check a whole cache, and print everything that is not as it should be. Nothing is changed.

    Args:
        cache_path: the cache.

    Returns:
        How many findings somebody should do something about; harmless ones are printed and not counted.

    Raises:
        CacheError: there is no cache, or its group cannot be trusted, so that nothing in it can be judged.
    """
    found = checked("verify-cache", cache_path)
    if found.damages:
        print_damages(cache_path, found.damages)
    _print_ways(found.made_with)
    for line in advice(found):
        console.print(line, soft_wrap=True)
    return len(found.harmful)


def checked(title: str, cache_path: Path) -> Verification:
    """Verify a cache, showing how far it is."""
    names = scenes_of(cache_path)
    with Tracker(title, len(names), "scenes") as tracker:
        found = verify(cache_path, lambda name: tracker.advance(note=name))
    console.print(
        f"{cache_path} holds {len(found.made_with)} of {len(names)} scenes: "
        f"{found.frames} frames, {found.checked_bytes / 1e9:.3g} GB",
        soft_wrap=True,
    )
    return found


def advice(found: Verification) -> list[str]:
    """What to do about findings, one sentence a line; that there is nothing to do when there is nothing."""
    remedies = Counter(damage.remedy for damage in found.damages)
    path, lines = found.path, []
    if remedies["mend permissions"]:
        lines.append(f"Mend the permissions of {remedies['mend permissions']} files, then make verify-cache again.")
    if remedies["restore"]:
        lines.append(f"Restore {path}/zarr.json from a copy, or make the cache again in another folder.")
    repairable = {"drop scene", "rebuild", "remove"} & remedies.keys()
    if repairable:
        lines.append(f"To mend it: make repair-cache CACHE={path}")
    if found.broken_scenes or remedies["remove"]:
        lines.append(
            f"then make what it drops again: make cache-teacher CACHE={path} (with the options that filled the cache)"
        )
    if remedies["sweep"] and not repairable:
        lines.append(f"Remains of killed writers are harmless; make repair-cache CACHE={path} removes them.")
    if not found.harmful:
        lines.append("Every file and every frame is as its receipt says.")
    return lines


def _print_ways(made_with: Mapping[str, Mapping[str, str]]) -> None:
    """Scenes made in more than one way are no fault, but worth knowing: numbers may differ by a quantisation level."""
    ways: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name, facts in made_with.items():
        ways.setdefault(tuple(sorted(facts.items())), []).append(name)
    if len(ways) < 2:
        return
    shared = set.intersection(*(set(way) for way in ways))
    console.print(f"The scenes were made in {len(ways)} ways:")
    for way, names in ways.items():
        differing = ", ".join(f"{key} {value}" for key, value in way if (key, value) not in shared)
        console.print(f"  {len(names)} scenes ({names[0]}, ...): {differing or 'nothing recorded'}", soft_wrap=True)
