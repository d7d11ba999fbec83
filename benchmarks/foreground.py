"""A tenth of a frame, where the objects are: our cell reader against zarr-python and zarrs on tiled stores.

    python -m benchmarks.foreground

Of each Base-sized BEV map (int8), 6 of its 64 tiles of 25×25 cells, drawn anew for every frame. Ours reads the cells
out of the frame-sized chunk of our store. The peers read the stores that suit them best: uncompressed, channel last,
tiles of 25×25 or of 50×50 cells, a shard a scene, each tile into memory that is there already. The goal is for warm
pages: cold, everybody waits for the disk.

- not verified: nobody checks anything.
- verified: zarr-python's tiles carry their crc32c; ours has one checksum for the whole frame, so all of it is read and
  checked, and the cells are picked from it. zarrs does not check single tiles.

Prints a Markdown table; figures are ms a frame.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.base_frames import BASE_CELLS, base_specs, slots_of, write_base_cache
from benchmarks.machine import command_line, drop_page_cache, is_installed, pin, scratch
from benchmarks.peers import scene_of, write_tiled_zarr
from benchmarks.report import Comparison, Goal, missing_peer, print_comparisons
from benchmarks.rounds import Contender, nothing, ratio, spread, time_rounds
from cache.cell_reading import CellSelection, read_selection
from cache.reading import open_cache
from cache.shard_file import ShardFile
from schemas.features import frame_bytes

TILES_A_SIDE, TILES_READ = 8, 6
TILES = {"25×25": 8, "50×50": 4}
"""Stores of the peers: tiles along a side of the map."""

GOAL = Goal(15)
Tiles = Sequence[tuple[int, int]]
Read = Callable[[int, Tiles], NDArray[np.int8]]
"""Reads tiles of a step; returns (tile · row · col, channel) in the tiles' row-major order."""


def drawn_tiles(step: int, number: int) -> Tiles:
    """Which tiles of a frame a round reads, in row-major order."""
    chosen = np.random.default_rng([step, number]).choice(TILES_A_SIDE**2, TILES_READ, replace=False)
    return [divmod(int(tile), TILES_A_SIDE) for tile in sorted(chosen)]


class OurCells:
    """Reads the cells of tiles out of one shard."""

    def __init__(self, shard: ShardFile, *, verify: bool) -> None:
        self._shard, self._verify = replace(shard), verify
        rows, cols, channels = shard.shape
        self._tile = rows // TILES_A_SIDE, cols // TILES_A_SIDE
        self._cells = np.zeros((TILES_READ * self._tile[0] * self._tile[1], channels), dtype=np.int8)
        self._frame = np.zeros(shard.shape, dtype=np.int8)

    def forget(self) -> None:
        """Let go of the mapped file: the kernel cannot drop pages that are mapped."""
        self._shard = replace(self._shard)

    def __call__(self, step: int, tiles: Tiles) -> NDArray[np.int8]:
        """In row-major order of the cells."""
        mask = np.zeros(self._shard.shape[:2], dtype=bool)
        height, width = self._tile
        for row, col in tiles:
            mask[row * height : (row + 1) * height, col * width : (col + 1) * width] = True
        cells = CellSelection.of_mask(mask)
        if self._verify:
            self._shard.read_into(step, self._frame)
            by_cell = self._frame.reshape(-1, self._frame.shape[-1])
            np.take(by_cell, cells.flat, axis=0, out=self._cells, mode="clip")  # the default mode would copy twice
        else:
            read_selection(self._shard, step, cells, self._cells)
        return self._cells


class ZarrTiles:
    """Reads tiles of a tiled store, with zarr-python's own codec pipeline or another one."""

    def __init__(self, path: Path, pipeline: str | None = None) -> None:
        import zarr  # noqa: PLC0415
        from zarr.core.buffer.cpu import NDBuffer  # noqa: PLC0415

        with zarr.config.set({"codec_pipeline.path": pipeline} if pipeline else {}):
            self._array = zarr.open_array(path, mode="r")
        self._height, self._width = (size // TILES_A_SIDE for size in self._array.shape[2:4])
        shape = (TILES_READ, self._height, self._width, self._array.shape[-1])
        self._tiles = np.zeros(shape, dtype=np.int8)
        self._out = [NDBuffer(tile) for tile in self._tiles]

    def __call__(self, step: int, tiles: Tiles) -> NDArray[np.int8]:
        """In the order of the tiles."""
        height, width = self._height, self._width
        for out, (row, col) in zip(self._out, tiles, strict=True):
            area = (slice(row * height, (row + 1) * height), slice(col * width, (col + 1) * width))
            self._array.get_basic_selection((0, step, *area), out=out)
        return self._tiles


def peers(folder: Path, *, verified: bool) -> dict[str, ZarrTiles]:
    """Every peer that is here, on every store."""
    found = {}
    for name in TILES:
        store = folder / store_name(name, checksums=verified)
        found[f"zarr-python, {name} tiles"] = ZarrTiles(store)
        if is_installed("zarrs") and not verified:
            import zarrs  # noqa: F401, PLC0415  registers its pipeline

            found[f"zarrs, {name} tiles"] = ZarrTiles(store, "zarrs.ZarrsCodecPipeline")
    return found


def store_name(tiles: str, *, checksums: bool) -> str:
    """Folder of a tiled store."""
    return f"tiles-{tiles}{'-checked' if checksums else ''}"


def agree(ours: Read, others: Sequence[Read]) -> None:
    """Whether all read the same numbers, whatever the order of the cells."""
    tiles = drawn_tiles(0, 0)
    expected = np.sort(np.array(ours(0, tiles)), axis=None)
    for other in others:
        assert np.array_equal(np.sort(other(0, tiles), axis=None), expected)


def read_frames(read: Read, steps: Sequence[int], number: int) -> None:
    """One round."""
    for step in steps:
        read(step, drawn_tiles(step, number))


def make_cold(ours: OurCells, folder: Path) -> None:
    """Nothing of the files stays in memory."""
    ours.forget()
    drop_page_cache(folder)


def compare(folder: Path, steps: int, rounds: int) -> list[Comparison]:
    """All rows."""
    shard = open_cache(folder / "cache").shard("scene-0000", "bev")
    rows = []
    for verified in (False, True):
        ours, others = OurCells(shard, verify=verified), peers(folder, verified=verified)
        agree(ours, list(others.values()))
        for temperature, passes in (("warm", 3), ("cold", 1)):
            order = list(range(steps)) * passes
            contenders: dict[str, Contender] = {
                name: partial(read_frames, read, order) for name, read in {"ours": ours, **others}.items()
            }
            prepare = partial(make_cold, ours, folder) if temperature == "cold" else nothing
            seconds = time_rounds(contenders, rounds, prepare)
            per_frame = {name: spread(values).scaled(1000 / len(order)) for name, values in seconds.items()}
            setting = f"{temperature}, {'verified' if verified else 'not verified'}"
            for name in others:
                goal = GOAL if name.startswith("zarr-python") and temperature == "warm" else None
                gained = ratio(seconds[name], seconds["ours"])
                rows.append(Comparison(name, setting, per_frame["ours"], per_frame[name], gained, goal))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = command_line(__doc__, rounds=9)
    parser.add_argument("--steps", type=int, default=20, help="frames")
    parser.add_argument(
        "--cells", type=int, default=BASE_CELLS, help="rows and columns of the BEV grid, 8 tiles a side"
    )
    chosen = parser.parse_args(arguments)
    specs, (slot,) = base_specs(chosen.cells, ("bev",)), slots_of(1, chosen.steps)
    pin(1)
    with scratch(chosen.folder, 5.5 * frame_bytes(specs, "int8") * chosen.steps / 1e9) as folder:
        write_base_cache(folder / "cache", specs, [slot], chosen.cells)
        shard = open_cache(folder / "cache").shard(slot.name, "bev")
        frames = scene_of(slot, {"bev": shard}).arrays["bev"]
        for name, a_side in TILES.items():
            for checksums in (False, True):
                store = folder / store_name(name, checksums=checksums)
                write_tiled_zarr(store, frames, chosen.cells // a_side, checksums=checksums)
        rows: list[Comparison | tuple[str, ...]] = [*compare(folder, chosen.steps, chosen.rounds)]
    if not is_installed("zarrs"):
        rows.append(missing_peer("zarrs"))
    print_comparisons(rows)


if __name__ == "__main__":
    main()
