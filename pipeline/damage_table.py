"""How findings about a cache are printed: one line each, frames of one file together."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from cache.damage import Damage, Remedy
from pipeline.console import console

REMEDIES: dict[Remedy, str] = {
    "drop scene": "scene to be made again",
    "rebuild": "made again from sound files",
    "remove": "to be removed",
    "mend permissions": "may not be read",
    "restore": "needs a copy",
    "sweep": "harmless remains",
    "none": "harmless, not ours",
}
"""What becomes of a finding, in a few words."""

_HEADER = ("scene", "array", "step", "remedy", "what")


def print_damages(root: Path, damages: Sequence[Damage]) -> None:
    """Print findings as aligned lines that are never wrapped, so that ``grep`` finds a scene's.

    Args:
        root: the cache folder; files are named relative to it.
        damages: in the order in which ``verify`` gives them.
    """
    rows = [_HEADER]
    rows += [_row(root, list(group)) for _, group in groupby(damages, key=_kind)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER) - 1)]
    for row in rows:
        start = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        console.print(f"  {start}  {row[-1]}", soft_wrap=True)


def _kind(damage: Damage) -> tuple[object, ...]:
    """What stands in one line: the remains of one scene, or the bad frames of one file."""
    if damage.remedy == "sweep":
        return damage.scene_name, damage.remedy
    return damage.path, damage.step is None, damage.remedy


def _row(root: Path, alike: list[Damage]) -> tuple[str, str, str, str, str]:
    first = alike[0]
    others = f", and {len(alike) - 1} more" if len(alike) > 1 else ""
    place = first.path.relative_to(root) if first.path.is_relative_to(root) else first.path
    steps = _ranges([damage.step for damage in alike if damage.step is not None])
    what = f"{first.what}{others} ({place})"
    arrays = dict.fromkeys(damage.array_name for damage in alike)
    array = first.array_name or "-" if len(arrays) == 1 else f"{len(arrays)} arrays"
    return first.scene_name or "-", array, steps or "-", REMEDIES[first.remedy], what


def _ranges(steps: list[int]) -> str:
    """``[0, 1, 2, 5]`` as ``0-2,5``."""
    runs: list[list[int]] = []
    for step in steps:
        if runs and step == runs[-1][-1] + 1:
            runs[-1].append(step)
        else:
            runs.append([step])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
