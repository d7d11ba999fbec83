"""``make view-cache ARGS="--against OTHER"``: what is different between two caches, in tables and pictures."""

from collections.abc import Sequence
from pathlib import Path

from cache.reading import Cache
from pipeline.cache_comparison import (
    Comparison,
    FeatureDifference,
    at_coarser_grid,
    common_scenes,
    compare_caches,
    tokens_of,
)
from pipeline.console import Tracker, console, print_table
from pipeline.pictures.bev_colors import fit_colors
from pipeline.pictures.difference import draw_difference
from pipeline.pictures.spread import spread

_DPI = 150.0
_SHOWN_FIELDS = 40


def view_comparison(ours: Cache, theirs: Cache, asked: Sequence[str], folder: Path, stills: int) -> None:
    """Print how two caches differ, and draw the BEV differences of a few frames of the first common scene.

    Args:
        ours: this cache.
        theirs: the other, which errors are relative to.
        asked: scenes to narrow down to; all common ones when empty.
        folder: for the pictures; made when there is one.
        stills: frames to draw.

    Raises:
        CacheError: a scene asked for is missing, or a frame is damaged.
    """
    scenes = common_scenes(ours, theirs, asked)
    total = sum(min(len(tokens_of(ours, scene)), len(tokens_of(theirs, scene))) for scene in scenes)
    with Tracker("compare", total, "frames") as tracker:
        found = compare_caches(ours, theirs, scenes, tracker.advance, narrowed=bool(asked))
    _print_manifests(found)
    _print_scenes(found)
    _print_features(found)
    if found.identical:
        console.print(f"identical: {ours.path} and {theirs.path} agree in every stored byte", soft_wrap=True)
        return
    if any(feature.name.split(" at ")[0] == "bev" and feature.frames for feature in found.features):
        _draw(ours, theirs, found.scenes[0], folder, stills)


def _print_manifests(found: Comparison) -> None:
    if not found.manifest:
        console.print("The manifests agree in every field of the fingerprint.")
        return
    rows = [(name, _short(ours), _short(theirs)) for name, ours, theirs in found.manifest[:_SHOWN_FIELDS]]
    print_table("Manifest", ("field", "this cache", "the other"), rows)
    if len(found.manifest) > _SHOWN_FIELDS:
        console.print(f"and {len(found.manifest) - _SHOWN_FIELDS} fields more")


def _print_scenes(found: Comparison) -> None:
    for where, names in (("this cache", found.only_ours), ("the other cache", found.only_theirs)):
        if names:
            console.print(f"{len(names)} scenes only in {where}: {_some(names)}", soft_wrap=True)
    if not found.scenes:
        console.print("The caches have no scene in common.")
    elif found.other_bytes:
        share = f"{len(found.other_bytes)} of {len(found.scenes)}"
        console.print(f"Stored values differ in {share} common scenes: {_some(found.other_bytes)}", soft_wrap=True)


def _print_features(found: Comparison) -> None:
    for line in found.incomparable:
        console.print(line, soft_wrap=True)
    rows = [_feature_row(feature) for feature in found.features if feature.frames > 0]
    if rows:
        header = ("feature", "centred error", "cosine", "largest", "same stored")
        frames = found.features[0].frames
        print_table(f"{frames} common frames; the other cache is the reference", header, rows)


def _feature_row(feature: FeatureDifference) -> tuple[str, ...]:
    same = f"{feature.same / feature.values:.4%}" if feature.values else "–"
    error = feature.error
    return feature.name, _number(error.centred_error, 4), _number(error.cosine, 8), f"{error.largest_error:.4g}", same


def _draw(ours: Cache, theirs: Cache, scene: str, folder: Path, stills: int) -> None:
    """Pictures of evenly spread frames of one scene."""
    held = set(tokens_of(theirs, scene))
    tokens = [token for token in tokens_of(ours, scene) if token in held]
    steps = spread(len(tokens), stills)
    grid = min((ours.manifest.grid, theirs.manifest.grid), key=lambda one: one.rows * one.cols)
    pairs = [at_coarser_grid(ours.read(tokens[step], "bev"), theirs.read(tokens[step], "bev")) for step in steps]
    colors = fit_colors([right for _, right in pairs])
    for step, (left, right) in zip(steps, pairs, strict=True):
        heading = f"{_name(ours)} against {_name(theirs)}: {scene}, frame {step}"
        draw_difference(left, right, colors, grid, heading).save(folder / f"{scene}-{step:03d}-difference.png", _DPI)
    console.print(f"Pictures in {folder}", soft_wrap=True)


def _number(value: float | None, digits: int) -> str:
    return "constant" if value is None else f"{value:.{digits}g}"


def _name(cache: Cache) -> str:
    return str(cache.path).rstrip("/").rsplit("/", 1)[-1]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _short(value: object) -> str:
    words = str(value)
    return words if len(words) <= 60 else f"{words[:28]} … {words[-28:]}"
