"""Our shards against zarr-python's reading of them, byte layout included."""

from pathlib import Path
from typing import NamedTuple

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cache.layout import shard_key
from cache.shard_file import ShardFile
from cache.shard_writer import ShardWriter
from schemas.features import StoredArray

DTYPES = ("int8", "uint8", "float16", "float32")


def written(path: Path, array: StoredArray, frames: np.ndarray, step_axis: int, compressed: bool) -> ShardFile:
    shard = ShardWriter(path, array, step_axis, compressed)
    for frame in frames:
        shard.append(frame)
    contents = shard.finish()
    assert path.stat().st_size == contents.file_bytes
    return ShardFile(path, "scene-0001", array, compressed, contents.offsets, contents.nbytes, contents.crc32c)


class Case(NamedTuple):
    frames: np.ndarray
    absent: int
    scene_index: int
    compressed: bool


@st.composite
def cases(draw: st.DrawFn) -> Case:
    shape = draw(arrays.array_shapes(min_dims=1, max_dims=4, max_side=4))
    values = np.random.default_rng(draw(st.integers(0, 2**16))).integers(0, 100, (draw(st.integers(1, 5)), *shape))
    frames = values.astype(draw(st.sampled_from(DTYPES)))
    return Case(frames, draw(st.integers(0, 3)), draw(st.integers(0, 2)), draw(st.booleans()))


@settings(max_examples=60)
@given(case=cases())
def test_zarr_reads_what_we_append(tmp_path_factory: pytest.TempPathFactory, case: Case) -> None:
    root = tmp_path_factory.mktemp("shard")
    steps, *shape = case.frames.shape
    axis, dtype = steps + case.absent, case.frames.dtype.name
    fill = float("nan") if dtype.startswith("float") else 77.0
    codecs = ([zarr.codecs.ZstdCodec()] if case.compressed else []) + [zarr.codecs.Crc32cCodec()]
    theirs = zarr.create_array(
        store=str(root / "a"),
        shape=(3, axis, *shape),
        chunks=(1, 1, *shape),
        shards=(1, axis, *shape),
        dtype=dtype,
        compressors=codecs,
        fill_value=fill,
        chunk_key_encoding={"name": "default", "separator": "."},
    )
    array = StoredArray("a", tuple("yxcd"[: len(shape)]), tuple(shape), dtype, fill)
    path = root / "a" / shard_key(case.scene_index, 2 + len(shape))
    ours = written(path, array, case.frames, axis, case.compressed)
    expected = np.full((3, axis, *shape), fill, dtype=dtype)
    expected[case.scene_index, :steps] = case.frames
    np.testing.assert_array_equal(theirs[:], expected)
    for step in range(steps):
        np.testing.assert_array_equal(ours.read(step), case.frames[step])


def test_the_bytes_are_as_documented(tmp_path: Path) -> None:
    array = StoredArray("a", ("y",), (3,), "float16", float("nan"))
    frames = np.arange(6, dtype=np.float16).reshape(2, 3)
    shard = written(tmp_path / "shard", array, frames, step_axis=3, compressed=False)
    chunks = [f.tobytes() + google_crc32c.value(f.tobytes()).to_bytes(4, "little") for f in frames]
    index = np.array([[0, 10], [10, 10], [2**64 - 1, 2**64 - 1]], dtype="<u8").tobytes()
    expected = b"".join(chunks) + index + google_crc32c.value(index).to_bytes(4, "little")
    assert (tmp_path / "shard").read_bytes() == expected
    assert shard.offsets.tolist() == [0, 10]
    assert shard.nbytes.tolist() == [6, 6]
    assert shard.steps == 2
    assert shard.shape == (3,)
    assert shard.dtype == np.dtype("<f2")


def test_a_writer_never_overwrites(tmp_path: Path) -> None:
    array = StoredArray("a", ("y",), (3,), "int8", -128.0)
    (tmp_path / "shard").write_bytes(b"somebody's")
    with pytest.raises(FileExistsError):
        ShardWriter(tmp_path / "shard", array, 3, compressed=False)
