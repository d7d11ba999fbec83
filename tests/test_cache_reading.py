"""A reader refuses what is absent, and believes receipts only."""

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cache_fakes import (
    SLOTS,
    SPECS,
    features_of,
    manifest_of,
    rows_of,
    token_of,
    write_cache,
    write_scene,
)
from cache_no_fsync import no_fsync

from cache import open_cache
from cache.parquet_file import parquet_bytes, read_parquet
from cache.writing import open_for_writing
from schemas.errors import CacheError
from schemas.frame_index import FRAME_SCHEMA

__all__ = ["no_fsync"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A cache of which the first two scenes are made."""
    write_cache(tmp_path / "cache", SLOTS[:2])
    return tmp_path / "cache"


def flipped(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_frames_are_the_rows_of_the_finished_scenes(root: Path) -> None:
    cache = open_cache(root)
    assert cache.frames.schema.equals(FRAME_SCHEMA)
    assert cache.scene_names == ("scene-0001", "scene-0002")
    assert cache.all_scene_names == ("scene-0001", "scene-0002", "scene-0003")
    expected = [token_of(slot, step) for slot in SLOTS[:2] for step in range(slot.length)]
    assert cache.frames["sample_token"].to_pylist() == expected


def test_an_empty_cache_opens(tmp_path: Path) -> None:
    write_cache(tmp_path, [])
    cache = open_cache(str(tmp_path))
    assert cache.scene_names == ()
    assert cache.frames.num_rows == 0
    assert cache.frames.schema.equals(FRAME_SCHEMA)


def test_a_cache_is_a_picture_of_the_moment_it_was_opened(root: Path) -> None:
    cache = open_cache(root)
    write_scene(open_for_writing(root, manifest_of(), SLOTS), SLOTS[2])
    assert cache.scene_names == ("scene-0001", "scene-0002")
    assert open_cache(root).scene_names == ("scene-0001", "scene-0002", "scene-0003")


def test_all_that_is_absent_is_made_without_naming_it(tmp_path: Path) -> None:
    write_cache(tmp_path, SLOTS[:1])
    with pytest.raises(CacheError, match=rf"2 of 3 scenes .*: make cache-teacher CACHE={tmp_path}, or ask for fewer"):
        open_cache(tmp_path).require_scenes([slot.name for slot in SLOTS])


def test_absent_scenes_are_refused_by_name_with_the_remedy(root: Path) -> None:
    cache = open_cache(root)
    cache.require_scenes(["scene-0002", "scene-0001"])
    told = r'1 of 2 scenes are not in the cache .*: scene-0003. Add them: make cache-teacher .*--scenes scene-0003"'
    with pytest.raises(CacheError, match=told):
        cache.require_scenes(["scene-0001", "scene-0003"])
    with pytest.raises(CacheError, match=r"are not in the cache"):
        cache.shard("scene-0003", "bev")
    with pytest.raises(
        CacheError, match=r"made for split mini_train .* has no place for the scenes a, b, c, d, e, f, g, h and 1"
    ):
        cache.require_scenes(list("abcdefghi"))


def test_absent_frames_features_and_arrays_are_refused(root: Path) -> None:
    cache = open_cache(root)
    with pytest.raises(CacheError, match=r"no frame with sample_token t-9 in the cache .* 8 frames of 2 scenes"):
        cache.read("t-9", "bev")
    with pytest.raises(CacheError, match=r"no frame with sample_token"):
        cache.read(token_of(SLOTS[2], 0), "bev")
    told = r'lacks the features depth; it holds bev, .*--arrays bev,.*,query_boxes,depth"'
    with pytest.raises(CacheError, match=told):
        cache.read(token_of(SLOTS[0], 0), "depth")
    with pytest.raises(CacheError, match=r"no array depth in the cache .*'bev_scale'"):
        cache.shard("scene-0001", "depth")


def test_a_training_run_is_compared_with_the_cache(root: Path) -> None:
    cache = open_cache(root)
    extent = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
    bev = {"bev": ("y", "x", "channel")}
    cache.compare_with(tables_sha256="1" * 64, class_names=("car", "bus"), extent_m=extent, required=bev)
    with pytest.raises(CacheError) as caught:
        cache.compare_with(
            tables_sha256="2" * 64,
            class_names=["car"],
            extent_m=(-54.0, *extent[1:]),
            required={"bev": ("channel", "y", "x")},
        )
    told = str(caught.value)
    assert f"dataset tables (sha256): {'1' * 64} in the cache, {'2' * 64} here (see DATA= and VERSION=)" in told
    assert "class order: ['car', 'bus'] in the cache, ['car'] here" in told
    assert "BEV extent in metres: [-51.2, " in told
    assert "[-54.0, " in told
    assert "dimensions of bev: ['y', 'x', 'channel'] in the cache, ['channel', 'y', 'x'] here" in told
    assert f"make cache-teacher CACHE={root}-2" in told
    with pytest.raises(CacheError, match=r"lacks the features depth"):
        cache.compare_with(tables_sha256="", class_names=(), extent_m=(), required={"depth": ("y", "x")})


def test_a_shard_offers_what_a_stream_needs(root: Path) -> None:
    shard = open_cache(root).shard("scene-0002", "bev_scale")
    assert shard.path.read_bytes()[shard.offsets[2] :][: shard.nbytes[2]] == shard.read(2).tobytes()
    assert shard.steps == 5
    assert shard.shape == (6,)
    assert shard.dtype == np.dtype("<f4")
    assert not shard.compressed
    assert (np.diff(shard.offsets) == shard.nbytes[:-1] + 4).all()


def test_a_stale_frame_index_is_not_believed(root: Path) -> None:
    stale = (root / "frames.parquet").read_bytes()
    write_scene(open_for_writing(root, manifest_of(), SLOTS), SLOTS[2])
    (root / "frames.parquet").write_bytes(stale)
    assert open_cache(root).scene_names == ("scene-0001", "scene-0002", "scene-0003")
    (root / "receipts" / "scene-0002.parquet").unlink()
    cache = open_cache(root)
    assert cache.scene_names == ("scene-0001", "scene-0003")
    assert (root / "frames.parquet").read_bytes() == stale  # a reader writes nothing
    open_for_writing(root, manifest_of(), SLOTS)
    _, facts = read_parquet(root / "frames.parquet")
    assert facts["scenes"] == ["scene-0001", "scene-0003"]


@pytest.mark.parametrize("content", [b"", b"PAR1 no more", None])
def test_a_frame_index_that_is_damaged_or_gone_is_made_again(root: Path, content: bytes | None) -> None:
    before = open_cache(root).frames
    whole = (root / "frames.parquet").read_bytes()
    (root / "frames.parquet").unlink()
    if content is not None:
        (root / "frames.parquet").write_bytes(content)
    assert open_cache(root).frames.equals(before)
    open_for_writing(root, manifest_of(), SLOTS)
    assert (root / "frames.parquet").read_bytes() == whole


def test_a_flipped_bit_in_the_frame_index_is_noticed(root: Path) -> None:
    before = open_cache(root).frames
    flipped(root / "frames.parquet", 100)
    with pytest.raises(OSError, match=r"CRC"):
        pq.ParquetFile(root / "frames.parquet", page_checksum_verification=True).read()
    assert open_cache(root).frames.equals(before)


def with_other_timestamps(frames_file: Path, fingerprint: str) -> bytes:
    """A frame index of the same scenes whose rows differ."""
    table, facts = read_parquet(frames_file)
    place = table.schema.get_field_index("timestamp_us")
    zeros = pa.array([0] * table.num_rows, pa.int64())
    return parquet_bytes(
        table.set_column(place, table.schema.field(place), zeros), facts | {"fingerprint": fingerprint}
    )


def test_another_caches_frame_index_is_not_believed(root: Path) -> None:
    before = open_cache(root).frames
    (root / "frames.parquet").write_bytes(with_other_timestamps(root / "frames.parquet", "another"))
    assert open_cache(root).frames.equals(before)


def test_a_scene_made_again_replaces_its_rows_in_the_frame_index(root: Path) -> None:
    before = open_cache(root).frames
    fingerprint = open_cache(root).manifest.fingerprint
    (root / "frames.parquet").write_bytes(with_other_timestamps(root / "frames.parquet", fingerprint))
    writer = open_for_writing(root, manifest_of(), SLOTS)
    for slot in SLOTS[:2]:
        (root / "receipts" / f"{slot.name}.parquet").unlink()
        assert write_scene(writer, slot)
    table, _ = read_parquet(root / "frames.parquet")
    assert table.equals(before)


def test_a_cache_reads_from_threads_and_travels_between_processes(root: Path) -> None:
    cache = pickle.loads(pickle.dumps(open_cache(root)))
    places = [(slot, step, spec) for slot in SLOTS[:2] for step in range(slot.length) for spec in SPECS[3:]]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda place: cache.read(token_of(place[0], place[1]), place[2].name), places))
    for (slot, step, spec), values in zip(places, found, strict=True):
        np.testing.assert_allclose(values, features_of(slot, step)[spec.name], rtol=1e-3)


def test_rows_may_carry_metadata_of_their_own(tmp_path: Path) -> None:
    writer = open_for_writing(tmp_path, manifest_of(), SLOTS)
    for slot in SLOTS[:2]:
        with writer.scene(slot.name) as scene:
            for step in range(slot.length):
                scene.append(features_of(slot, step))
            scene.commit(rows_of(slot).replace_schema_metadata({"made": slot.name}))
    assert open_cache(tmp_path).scene_names == ("scene-0001", "scene-0002")


def test_opening_imports_nothing_heavy(root: Path) -> None:
    program = (
        "import sys; from cache import open_cache; cache = open_cache(sys.argv[1]); "
        "cache.read(cache.frames['sample_token'][0].as_py(), 'bev'); "
        "print([name for name in ('torch', 'zarr', 'dask', 'nuscenes', 'xarray', 'pandas') if name in sys.modules])"
    )
    repository = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", program, str(root)], capture_output=True, text=True, cwd=repository, check=True
    )
    assert done.stdout.strip() == "[]", done.stdout
