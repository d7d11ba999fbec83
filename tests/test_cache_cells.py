"""Some cells of a frame are those of the whole frame, and little more than them is read."""

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from cache_fakes import SLOTS, SPECS, token_of, write_cache
from cache_no_fsync import no_fsync
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from range_server import serving

from cache import Cache, cell_reading, open_cache
from cache.cell_reading import CellSelection, read_selection
from cache.shard_file import ShardFile
from cache.shard_writer import ShardWriter
from schemas.errors import CacheError
from schemas.features import StoredArray, Tier

__all__ = ["no_fsync"]

MAPS = [spec.name for spec in SPECS if spec.dims[:2] == ("y", "x")]
TOKEN = token_of(SLOTS[1], 3)
SCATTERED = np.array([[3, 4], [0, 0], [2, 1], [2, 2], [0, 0], [3, 0]])


@pytest.fixture(scope="module", params=["int8", "float16", "archive"])
def cache(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    tier: Tier = request.param
    path = tmp_path_factory.mktemp("cells") / tier
    write_cache(path, SLOTS[:2], tier=tier)
    return open_cache(path)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("verify", [False, True])
def test_cells_are_those_of_the_whole_frame(cache: Cache, name: str, verify: bool) -> None:
    whole = cache.read(TOKEN, name)
    found = cache.read_cells(TOKEN, name, SCATTERED, verify=verify)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, whole[SCATTERED[:, 0], SCATTERED[:, 1]])
    assert cache.read_cells(TOKEN, name, np.empty((0, 2), dtype=np.int64)).shape == (0, *whole.shape[2:])


def test_cells_over_http(tmp_path: Path) -> None:
    write_cache(tmp_path / "cache", SLOTS[:2])
    expected = open_cache(tmp_path / "cache").read_cells(TOKEN, "bev", SCATTERED)
    with serving(tmp_path) as (host, _):
        np.testing.assert_array_equal(open_cache(f"{host}/cache").read_cells(TOKEN, "bev", SCATTERED), expected)


def test_what_cannot_be_asked_is_refused(cache: Cache) -> None:
    with pytest.raises(CacheError, match=r"2 of 3 BEV cells are outside the grid of 4 rows and 5 columns, .* \(4, 0\)"):
        cache.read_cells(TOKEN, "bev", np.array([[3, 4], [4, 0], [0, -1]]))
    with pytest.raises(CacheError, match=r"expected BEV cells as \(n, 2\) integers.*float64 \(2, 2\)"):
        cache.read_cells(TOKEN, "bev", np.zeros((2, 2)))
    with pytest.raises(CacheError, match=r"query_boxes has the dimensions \('query', 'code'\).*begin with \(y, x\)"):
        cache.read_cells(TOKEN, "query_boxes", SCATTERED)
    with pytest.raises(CacheError, match=r"no frame with sample_token x"):
        cache.read_cells("x", "bev", SCATTERED)
    with pytest.raises(CacheError, match=r"lacks the features depth"):
        cache.read_cells(TOKEN, "depth", SCATTERED)


def test_damage_shows_when_verified_and_only_then(tmp_path: Path) -> None:
    write_cache(tmp_path, SLOTS[:2])
    cache = open_cache(tmp_path)
    shard = cache.shard("scene-0002", "bev")
    data = bytearray(shard.path.read_bytes())
    data[int(shard.offsets[3])] ^= 1
    shard.path.write_bytes(data)
    cache.read_cells(TOKEN, "bev", SCATTERED)
    with pytest.raises(CacheError, match=r"scene-0002, array bev, step 3: expected crc32c"):
        cache.read_cells(TOKEN, "bev", SCATTERED, verify=True)
    scales = cache.shard("scene-0002", "bev_scale")
    scales.path.write_bytes(bytes(scales.path.stat().st_size))
    with pytest.raises(CacheError, match=r"scene-0002, array bev_scale"):
        cache.read_cells(TOKEN, "bev", SCATTERED)


def shard_of(path: Path, frames: np.ndarray) -> ShardFile:
    array = StoredArray("map", ("y", "x", "channel"), frames.shape[1:], str(frames.dtype), -1.0)
    writer = ShardWriter(path, array, len(frames), compressed=False)
    for frame in frames:
        writer.append(frame)
    contents = writer.finish()
    return ShardFile(
        path=path,
        scene_name="scene-0001",
        array=array,
        compressed=False,
        offsets=contents.offsets,
        nbytes=contents.nbytes,
        crc32c=contents.crc32c,
    )


def not_mapped(_: ShardFile) -> None:
    """As on a system that cannot say what a mapping would fail on."""


@given(data=st.data(), gap=st.sampled_from([0, 1, 6, 40, 10_000]), mapped=st.booleans())
@settings(max_examples=100)
def test_any_mask_reads_what_indexing_gives(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, gap: int, mapped: bool
) -> None:
    rows, cols, channels = (data.draw(st.integers(1, size)) for size in (7, 9, 3))
    mask = data.draw(arrays(np.bool_, (rows, cols)))
    frames = np.arange(2 * rows * cols * channels, dtype=np.int16).reshape(2, rows, cols, channels)
    shard = shard_of(tmp_path_factory.mktemp("shard") / "map", frames)
    selection = CellSelection.of_mask(mask)
    into = np.empty((int(mask.sum()), channels), dtype=np.int16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cell_reading, "MAPPED_GAP_BYTES" if mapped else "LOCAL_GAP_BYTES", gap)
        if not mapped:
            patch.setattr(ShardFile, "mapped", not_mapped)
        read_selection(shard, 1, selection, into)
    np.testing.assert_array_equal(into, frames[1][mask])
    listed = np.argwhere(mask)[::-1]
    again, which = CellSelection.of_cells((rows, cols), listed)
    np.testing.assert_array_equal(again.flat, selection.flat)
    np.testing.assert_array_equal(into[which], frames[1][listed[:, 0], listed[:, 1]])


def test_where_nothing_can_be_mapped_a_window_is_one_call_a_row_and_reads_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The property that makes it quick: 25 rows of 25 cells of 256 bytes, 44 kB apart, are 25 small reads."""
    frames = np.random.default_rng(0).integers(-127, 128, (1, 200, 200, 256), dtype=np.int8)
    shard = shard_of(tmp_path / "map", frames)
    mask = np.zeros((200, 200), dtype=bool)
    mask[50:75, 100:125] = True
    into = np.empty((625, 256), dtype=np.int8)
    calls: list[int] = []
    preadv = os.preadv

    def counted(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        calls.append(sum(map(len, buffers)))
        return preadv(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", counted)
    monkeypatch.setattr(ShardFile, "mapped", not_mapped)
    read_selection(shard, 0, CellSelection.of_mask(mask), into)
    assert calls == [25 * 256] * 25
    np.testing.assert_array_equal(into, frames[0][mask])
    calls.clear()
    mask[50:75, 100:125] = np.indices((25, 25)).sum(axis=0) % 2 == 0  # a chequerboard: neighbours are joined
    read_selection(shard, 0, CellSelection.of_mask(mask), into[:313])
    assert len(calls) == 25
    np.testing.assert_array_equal(into[:313], frames[0][mask])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can say what a mapping would fail on")
def test_mapped_cells_take_no_call_and_cross_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.random.default_rng(0).integers(-127, 128, (2, 40, 30, 70), dtype=np.int8)
    shard = shard_of(tmp_path / "map", frames)
    monkeypatch.setattr(os, "preadv", None)
    for mask in (np.ones((40, 30), dtype=bool), np.eye(40, 30, dtype=bool), np.arange(1200).reshape(40, 30) > 1198):
        into = np.empty((int(mask.sum()), 70), dtype=np.int8)
        read_selection(shard, 1, CellSelection.of_mask(mask), into)
        np.testing.assert_array_equal(into, frames[1][mask])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can say what a mapping would fail on")
def test_a_file_that_fails_while_it_is_mapped_is_named_and_kills_nobody(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(-127, 128, (1, 100, 100, 8), dtype=np.int8)
    shard = shard_of(tmp_path / "map", frames)
    cells, into = CellSelection.of_mask(np.ones((100, 100), dtype=bool)), np.empty((10_000, 8), dtype=np.int8)
    read_selection(shard, 0, cells, into)
    os.truncate(shard.path, 4096)
    with pytest.raises(CacheError, match=r"scene-0001, array map, step 0: the file ends before the frame does"):
        read_selection(shard, 0, cells, into)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can say what a mapping would fail on")
def test_a_mapped_shard_can_be_sent_to_another_process_and_outlives_its_name(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(-127, 128, (1, 4, 5, 8), dtype=np.int8)
    shard = shard_of(tmp_path / "map", frames)
    cells, into = CellSelection.of_mask(np.ones((4, 5), dtype=bool)), np.empty((20, 8), dtype=np.int8)
    read_selection(shard, 0, cells, into)
    read_selection(pickle.loads(pickle.dumps(shard)), 0, cells, into)
    shard.path.unlink()
    into[:] = 0
    read_selection(shard, 0, cells, into)
    np.testing.assert_array_equal(into.reshape(4, 5, 8), frames[0])


def test_a_file_that_ends_early_is_named(tmp_path: Path) -> None:
    shard = shard_of(tmp_path / "map", np.zeros((2, 3, 4, 5), dtype=np.int8))
    os.truncate(shard.path, int(shard.offsets[1]) + 30)
    mask = np.zeros((3, 4), dtype=bool)
    mask[1:, 2] = True
    into = np.empty((2, 5), dtype=np.int8)
    with pytest.raises(CacheError, match=r"scene-0001, array map, step 1: the file ends before the frame does"):
        read_selection(shard, 1, CellSelection.of_mask(mask), into)
    read_selection(shard, 0, CellSelection.of_mask(mask), into)
    shard.path.unlink()
    with pytest.raises(CacheError, match=r"scene-0001, array map, step 0"):
        read_selection(pickle.loads(pickle.dumps(shard)), 0, CellSelection.of_mask(mask), into)
