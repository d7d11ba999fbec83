"""A cache through xarray and dask: what the reader gives, under names, and one chunk read for one frame."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from cache_fakes import SLOTS, SPECS, features_of, manifest_of, rows_of, token_of, write_cache
from cache_no_fsync import no_fsync

from cache import Cache, open_cache
from cache.shard_file import ShardFile
from cache.writing import SceneSlot, open_for_writing
from schemas.errors import CacheError
from schemas.features import Tier

__all__ = ["no_fsync"]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """A cache of which the first two scenes are made."""
    write_cache(tmp_path / "cache", SLOTS[:2])
    return open_cache(tmp_path / "cache")


@pytest.fixture
def chunks_read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """Every chunk read from a shard from now on, as array, scene and step."""
    read: Callable[[ShardFile, int], Any] = ShardFile.read
    seen: list[tuple[str, str, int]] = []

    def counted(shard: ShardFile, step: int) -> Any:
        seen.append((shard.array.name, shard.scene_name, step))
        return read(shard, step)

    monkeypatch.setattr(ShardFile, "read", counted)
    return seen


@pytest.mark.parametrize("tier", ["int8", "float16", "archive"])
def test_xarray_holds_what_the_reader_gives(tmp_path: Path, tier: Tier) -> None:
    write_cache(tmp_path, SLOTS[:2], tier=tier)
    cache = open_cache(tmp_path)
    dataset = cache.xarray()
    assert list(dataset.data_vars) == [spec.name for spec in SPECS]
    for spec in SPECS:
        assert dataset[spec.name].dims == ("scene", "step", *spec.dims)
        assert dataset[spec.name].dtype == np.float32
        for slot in SLOTS[:2]:
            for step in range(slot.length):
                found = dataset[spec.name].sel(scene=slot.name).isel(step=step).values
                np.testing.assert_array_equal(found, cache.read(token_of(slot, step), spec.name))


def test_coordinates_say_which_frame_is_which(cache: Cache) -> None:
    dataset = cache.xarray()
    assert dataset.scene.values.tolist() == ["scene-0001", "scene-0002", "scene-0003"]
    assert dataset.sample_token.dims == ("scene", "step")
    assert dataset.sample_token.values[1].tolist() == [token_of(SLOTS[1], step) for step in range(5)]
    assert dataset.sample_token.values[0].tolist() == [*(token_of(SLOTS[0], step) for step in range(3)), "", ""]
    assert dataset.timestamp_us.values.tolist() == [
        [0, 500_000, 1_000_000, 0, 0],
        [0, 500_000, 1_000_000, 1_500_000, 2_000_000],
        [0] * 5,
    ]
    assert dataset.valid.values.tolist() == [[True] * 3 + [False] * 2, [True] * 5, [False] * 5]
    np.testing.assert_allclose(dataset.x, [-40.96, -20.48, 0.0, 20.48, 40.96], atol=1e-12)
    np.testing.assert_allclose(dataset.y, [-38.4, -12.8, 12.8, 38.4])
    assert "class" not in dataset.coords  # none of these features has that dimension
    assert dataset.temporal_offsets.attrs == {"units": "cell", "description": "Sampling offsets."}
    assert dataset.attrs["fingerprint"] == cache.manifest.fingerprint
    ahead = dataset.bev.sel(y=slice(0, None)).sel(x=0.0, method="nearest")
    assert ahead.sizes == {"scene": 3, "step": 5, "y": 2, "channel": 6}


def test_class_names_stand_on_the_class_dimension(tmp_path: Path) -> None:
    logits = SPECS[3].model_copy(update={"name": "query_logits", "dims": ("query", "class"), "shape": (7, 2)})
    open_for_writing(tmp_path, manifest_of((logits,)), SLOTS)
    assert open_cache(tmp_path).xarray().query_logits["class"].values.tolist() == ["car", "bus"]


def test_what_is_absent_is_nan_and_not_valid(cache: Cache) -> None:
    dataset = cache.xarray()
    for name in dataset.data_vars:
        bad = np.isnan(dataset[name]).any([dim for dim in dataset[name].dims if dim not in ("scene", "step")])
        np.testing.assert_array_equal(bad, ~dataset.valid)
    with pytest.raises(CacheError, match=r"no frame with sample_token"):
        cache.read(token_of(SLOTS[2], 0), "bev")


@pytest.mark.parametrize(
    "index",
    [
        {"scene": 1, "step": 2},
        {"scene": slice(None, None, -1), "step": [4, 0, 0], "y": 1},
        {"scene": [1], "step": slice(1, 4), "channel": [5, 2], "x": slice(4, None, -2)},
        {"step": -4, "y": [0, 3], "x": [1, 2, 4]},
        {"scene": slice(0, 0)},
    ],
    ids=str,
)
def test_any_selection_is_that_of_the_whole(cache: Cache, index: dict[str, Any]) -> None:
    lazy, whole = cache.xarray().bev, cache.xarray().bev.load()
    found = lazy.isel(index)
    assert found.values.tobytes() == whole.isel(index).values.tobytes()
    assert found.transpose(*reversed(found.dims)).values.shape == whole.isel(index).shape[::-1]


def test_pointwise_selection_reads_the_points_alone(cache: Cache) -> None:
    pairs = {"scene": xr.DataArray([0, 1], dims="pair"), "step": xr.DataArray([2, 4], dims="pair")}
    found = cache.xarray().query_boxes.isel(pairs)
    for place, (slot, step) in enumerate([(SLOTS[0], 2), (SLOTS[1], 4)]):
        np.testing.assert_array_equal(found[place], cache.read(token_of(slot, step), "query_boxes"))


@pytest.fixture(scope="module")
def all_of_nuscenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with places for 850 scenes of up to 41 keyframes, of which one is made."""
    path = tmp_path_factory.mktemp("nuscenes") / "cache"
    slots = [SceneSlot(f"scene-{number:04d}", f"token-{number}", 41 - number % 2) for number in range(850)]
    writer = open_for_writing(path, manifest_of(SPECS[:1]), slots)
    with writer.scene(slots[500].name) as scene:
        for step in range(slots[500].length):
            scene.append(features_of(slots[500], step, SPECS[:1]))
        scene.commit(rows_of(slots[500]))
    return path


def test_one_frame_of_850_scenes_reads_one_chunk(
    all_of_nuscenes: Path, chunks_read: list[tuple[str, str, int]]
) -> None:
    dataset = open_cache(all_of_nuscenes).xarray()
    assert dataset.bev.shape == (850, 41, 4, 5, 6)
    frame = dataset.bev.isel(scene=500, step=7)
    assert chunks_read == []
    frame.load()
    place = ("scene-0500", 7)
    assert chunks_read == [("bev", *place), ("bev_scale", *place), ("bev_offset", *place)]
    assert np.isfinite(frame).all()
    assert np.isnan(dataset.bev.isel(scene=499, step=7)).all()
    assert len(chunks_read) == 3


def test_selecting_before_dask_builds_a_graph_of_the_selection(
    all_of_nuscenes: Path, chunks_read: list[tuple[str, str, int]]
) -> None:
    two = open_cache(all_of_nuscenes).xarray().bev.isel(scene=500, step=slice(3, 5)).chunk({"step": 1})
    assert len(two.__dask_graph__()) < 10
    assert two.sum().compute(scheduler="sync").item() == pytest.approx(float(two.load().sum()), rel=1e-5)
    assert len(chunks_read) == 2 * 2 * 3


def test_one_dask_frame_of_850_scenes_reads_one_chunk(
    all_of_nuscenes: Path, chunks_read: list[tuple[str, str, int]]
) -> None:
    cache = open_cache(all_of_nuscenes)
    bev = cache.dask("bev")
    assert bev.chunksize == (1, 1, 4, 5, 6)
    (frame,) = dask.optimize(bev[500, 7])
    assert len(frame.__dask_graph__()) < 5
    stored = zarr.open_array(all_of_nuscenes / "bev", mode="r")
    np.testing.assert_array_equal(frame.compute(scheduler="sync"), stored[500, 7])
    assert chunks_read == [("bev", "scene-0500", 7)]


def test_dask_arrays_are_the_stored_ones(cache: Cache) -> None:
    group = zarr.open_group(cache.path, mode="r")
    for name in [*cache.arrays, "valid"]:
        array = cache.dask(name)
        assert isinstance(array, da.Array)
        assert array.dtype == group[name].dtype
        np.testing.assert_array_equal(array.compute(scheduler="threads"), group[name][:])
    with pytest.raises(CacheError, match=r"no array depth in the cache"):
        cache.dask("depth")


def test_dask_names_differ_when_the_content_does(tmp_path: Path) -> None:
    write_cache(tmp_path, SLOTS[:1])
    before = open_cache(tmp_path)
    write_cache(tmp_path, SLOTS[1:2])
    assert before.dask("bev").name == before.dask("bev").name
    assert before.dask("bev").name != open_cache(tmp_path).dask("bev").name
    assert before.dask("bev").name != before.dask("bev_scale").name
    chunked = [opened.xarray().bev.chunk().data.name for opened in (before, before, open_cache(tmp_path))]
    assert chunked[0] == chunked[1] != chunked[2]
    selected = [before.xarray().bev.isel(index).chunk().data.name for index in ({"step": 0}, {"step": 0}, {"step": 1})]
    assert selected[0] == selected[1] != selected[2]


def test_dask_finds_a_name_without_pickling_the_cache(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("pickled")

    frame = cache.xarray().bev.isel(scene=1, step=2)
    monkeypatch.setattr(Cache, "__reduce_ex__", refuse)
    frame.chunk()


def test_damage_is_named_through_xarray_and_dask(cache: Cache) -> None:
    shard = cache.shard("scene-0002", "bev")
    data = bytearray(shard.path.read_bytes())
    data[int(shard.offsets[3]) + 1] ^= 1
    shard.path.write_bytes(data)
    with pytest.raises(CacheError, match=r"scene-0002, array bev, step 3: expected crc32c"):
        cache.xarray().bev.sel(scene="scene-0002").isel(step=3).load()
    with pytest.raises(CacheError, match=r"scene-0002, array bev, step 3: expected crc32c"):
        cache.dask("bev")[1, 3].compute(scheduler="sync")
    cache.xarray().bev.sel(scene="scene-0002").isel(step=2).load()


def test_views_travel_between_processes(cache: Cache) -> None:
    frame = cache.xarray().bev.isel(scene=1, step=2)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(frame)), frame)
    np.testing.assert_array_equal(
        cache.dask("bev")[1, 2].compute(scheduler="processes", num_workers=1), cache.shard("scene-0002", "bev").read(2)
    )


def test_an_empty_cache_has_views_too(tmp_path: Path) -> None:
    write_cache(tmp_path, [])
    dataset = open_cache(tmp_path).xarray()
    assert not dataset.valid.any()
    assert np.isnan(dataset.bev.isel(scene=0, step=0)).all()


def test_what_is_not_asked_for_is_not_imported(cache: Cache) -> None:
    program = (
        "import sys; from cache import open_cache; cache = open_cache(sys.argv[1])\n"
        "print([name for name in ('xarray', 'dask', 'zarr', 'fsspec') if name in sys.modules])\n"
        "cache.xarray().bev.isel(scene=0, step=0).load(); cache.dask('bev')[0, 0].compute()\n"
        "print([name for name in ('zarr', 'torch') if name in sys.modules])"
    )
    repository = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", program, str(cache.path)], capture_output=True, text=True, cwd=repository, check=True
    )
    assert done.stdout.split("\n")[:2] == ["[]", "[]"], done.stdout
