"""``make view-cache``: what a cache holds, as a table, and its frames as pictures."""

from pathlib import Path

from cache.reading import Cache, open_cache
from pipeline.console import Tracker, console, print_table
from pipeline.dataset import DataChoice, open_data
from pipeline.paths import OUT
from pipeline.pictures import BevPicture, bev_as_rgb, draw_frame
from pipeline.recipe import Recipe
from schemas.boxes import empty_boxes
from schemas.frames import Frame

PICTURES_PER_SCENE = 4


def view_cache(recipe: Recipe, cache_path: Path, choice: DataChoice, out: Path | None) -> None:
    """Print a summary, and draw a few frames of each chosen scene (the first scene unless some are named).

    Args:
        recipe: says where the frames' images are when ``choice`` does not.
        cache_path: the cache.
        choice: data directory, version and scenes.
        out: folder for the pictures.

    Raises:
        CacheError: no cache, or a scene that it does not hold.
        DataError: an image cannot be read.
    """
    cache = open_cache(cache_path)
    _print_summary(cache)
    names = choice.scenes or cache.scene_names[:1]
    cache.require_scenes(names)
    version = choice.version or cache.manifest.dataset.version
    tables = open_data(recipe, DataChoice(choice.data, version))
    folder = out or OUT / recipe.name / "pictures"
    chosen = [frame for name in names for frame in _spread(tables.frames(name), PICTURES_PER_SCENE)]
    with Tracker("view-cache", len(chosen), "pictures") as tracker:
        for frame in chosen:
            bev = BevPicture(bev_as_rgb(cache.read(frame.sample_token, "bev")), cache.manifest.grid)
            path = folder / f"{frame.scene_name}-{frame.step:03d}.png"
            draw_frame(path, frame, tables.data_root, frame.boxes or empty_boxes(), bev)
            tracker.advance(note=str(path))
    console.print(f"Pictures in {folder}", soft_wrap=True)


def _print_summary(cache: Cache) -> None:
    manifest = cache.manifest
    rows = [
        ("teacher", manifest.teacher.name + (" (untrained)" if manifest.teacher.untrained else "")),
        ("data", f"{manifest.dataset.version} {manifest.dataset.split}"),
        ("scenes", f"{len(cache.scene_names)} of {len(cache.all_scene_names)}"),
        ("frames", str(cache.frames.num_rows)),
        ("tier", manifest.tier),
        ("BEV grid", f"{manifest.grid.rows}×{manifest.grid.cols} over {manifest.grid.extent_m} m"),
        ("fingerprint", manifest.fingerprint),
    ]
    rows += [(spec.name, f"{' × '.join(map(str, spec.shape))}  ({', '.join(spec.dims)})") for spec in manifest.features]
    print_table(f"Cache {cache.path}", ("", ""), rows)


def _spread(items: tuple[Frame, ...], count: int) -> list[Frame]:
    """At most ``count`` of the items, evenly spaced, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(number * (len(items) - 1) / (count - 1))] for number in range(count)]
