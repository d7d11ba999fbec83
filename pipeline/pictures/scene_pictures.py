"""All pictures of one scene: stills of a few frames, and the whole of it as a GIF and as a page."""

from collections.abc import Callable
from pathlib import Path

from pipeline.pictures.animation import gif_frame, write_gif
from pipeline.pictures.page import page_frame, write_page
from pipeline.pictures.sheet import Artist
from pipeline.pictures.spread import spread

_STILL_DPI = 150.0
_PAGE_DPI = 100.0
_GIF_WIDTH_PX = 1200
_SECONDS_A_FRAME = 0.5
"""The pace of nuScenes' keyframes."""


def draw_scene(artist: Artist, folder: Path, subtitle: str, on_frame: Callable[[], None]) -> None:
    """Write ``<scene>.gif``, ``<scene>.html`` and ``<scene>-<step>-{boxes,attention,queries}.png``.

    Args:
        artist: draws the scene.
        folder: made when missing.
        subtitle: a line under the page's title.
        on_frame: called after every frame.

    Raises:
        DataError: an image cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    frames = artist.scene.frames
    stills = spread(len(frames), artist.options.stills)
    pages, animated = [], []
    for step, frame in enumerate(frames):
        if step in stills:
            _draw_stills(artist, step, folder / f"{frame.scene_name}-{step:03d}")
        pixels = artist.sheet(step).pixels(_PAGE_DPI)
        pages.append((f"frame {step} of {len(frames)}", page_frame(pixels)))
        animated.append(gif_frame(pixels, _GIF_WIDTH_PX))
        on_frame()
    name = frames[0].scene_name
    write_gif(folder / f"{name}.gif", animated, _SECONDS_A_FRAME)
    write_page(folder / f"{name}.html", (f"{artist.title}: {name}", subtitle), pages, _SECONDS_A_FRAME)


def _draw_stills(artist: Artist, step: int, start: Path) -> None:
    artist.boxes(step).save(start.with_name(f"{start.name}-boxes.png"), _STILL_DPI)
    if "attention" in artist.scene.kinds:
        artist.attention(step).save(start.with_name(f"{start.name}-attention.png"), _STILL_DPI)
    if "queries" in artist.scene.kinds:
        artist.queries(step).save(start.with_name(f"{start.name}-queries.png"), _STILL_DPI)
