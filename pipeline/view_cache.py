"""``make view-cache``: what a cache holds, in tables, and its scenes as pictures, an animation and a page."""

from collections.abc import Sequence
from pathlib import Path

from cache.reading import Cache, open_cache
from pipeline.cache_summary import print_summary
from pipeline.console import Tracker, console
from pipeline.dataset import DataChoice, open_data
from pipeline.paths import OUT
from pipeline.pictures.drawable import drawable
from pipeline.pictures.frame_contents import SceneContents
from pipeline.pictures.options import PictureOptions
from pipeline.pictures.scene_pictures import draw_scene
from pipeline.pictures.sheet import artist_of
from pipeline.recipe import Recipe
from pipeline.view_comparison import view_comparison
from scenes.scene_tables import SceneTables
from schemas.bev_grid import BevGrid
from schemas.errors import RecipeError


def view_cache(
    recipe: Recipe,
    cache_path: Path,
    choice: DataChoice,
    out: Path | None,
    against: Path | None = None,
    pictures: PictureOptions | None = None,
) -> None:
    """Print a summary, then draw each chosen scene (the first one unless some are named), or compare two caches.

    A comparison needs no data set; it covers every scene that both hold unless some are named.

    Args:
        recipe: says where the frames' images are when ``choice`` does not.
        cache_path: the cache.
        choice: data directory, version and scenes.
        out: folder for the pictures; ``out/<recipe>/pictures`` when None.
        against: another cache to compare with; None draws pictures.
        pictures: choices about the pictures; the defaults when None.

    Raises:
        CacheError: no cache, a scene that it does not hold, or damage.
        DataError: an image cannot be read.
        RecipeError: a cell outside the grid.
    """
    cache = open_cache(cache_path)
    pictures = pictures or PictureOptions()
    _refuse_cells_outside(pictures, cache.manifest.grid)
    print_summary(cache)
    folder = out or OUT / recipe.name / "pictures"
    if against is not None:
        view_comparison(cache, open_cache(against), choice.scenes, folder, pictures.stills)
        return
    names = choice.scenes or cache.scene_names[:1]
    cache.require_scenes(names)
    if not names:
        return
    version = choice.version or cache.manifest.dataset.version
    tables = open_data(recipe, DataChoice(choice.data, version))
    for reason in drawable(cache.manifest).reasons:
        console.print(reason, soft_wrap=True)
    _draw_scenes(cache, tables, names, folder, pictures)
    console.print(f"Pictures in {folder}; open a page: {folder / f'{names[0]}.html'}", soft_wrap=True)


def _draw_scenes(
    cache: Cache, tables: SceneTables, names: Sequence[str], folder: Path, pictures: PictureOptions
) -> None:
    manifest = cache.manifest
    title = manifest.teacher.name + (" (untrained)" if manifest.teacher.untrained else "")
    subtitle = (
        f"{manifest.dataset.name} {manifest.dataset.version} {manifest.dataset.split}, tier {manifest.tier}, "
        f"fingerprint {manifest.fingerprint[:16]}"
    )
    with Tracker("view-cache", sum(tables.scene_length(name) for name in names), "frames") as tracker:
        for name in names:
            scene = SceneContents(cache, tables.frames(name), pictures.min_score)
            draw_scene(artist_of(scene, tables.data_root, pictures, title), folder, subtitle, tracker.advance)


def _refuse_cells_outside(pictures: PictureOptions, grid: BevGrid) -> None:
    """Refuse cells that the map does not have."""
    for row, col in pictures.cells:
        if not (0 <= row < grid.rows and 0 <= col < grid.cols):
            raise RecipeError(
                f"--cells: ({row}, {col}) is outside the BEV grid of {grid.rows} rows and {grid.cols} columns; rows "
                f"count from 0 at the rear to {grid.rows - 1} ahead, columns from 0 at the left to {grid.cols - 1}"
            )
