"""The format as others rely on it: frozen arrays and bytes, and every snippet of docs/format.md."""

import hashlib
import importlib.util
import json
import re
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from cache_fakes import SLOTS, SPECS, Features, features_of, manifest_of, rows_of, token_of, tolerance, write_cache
from cache_no_fsync import no_fsync

from cache.reading import open_cache
from cache.writing import open_for_writing
from cache.zarr_documents import array_documents
from detectors.catalogue import DETECTORS
from detectors.teacher_features import feature_specs
from schemas.features import Tier

__all__ = ["no_fsync"]

DOCUMENT = (Path(__file__).resolve().parent.parent / "docs" / "format.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.DOTALL)

BASE_INT8 = {
    "bev": (("y", "x", "channel"), (200, 200, 256), "int8", -128),
    "bev_scale": (("channel",), (256,), "float32", "NaN"),
    "bev_offset": (("channel",), (256,), "float32", "NaN"),
    "temporal_offsets": (("y", "x", "head", "source", "point", "axis"), (200, 200, 8, 2, 4, 2), "int8", -128),
    "temporal_scale": (("head", "source", "point", "axis"), (8, 2, 4, 2), "float32", "NaN"),
    "temporal_weights": (("y", "x", "head", "source", "point"), (200, 200, 8, 2, 4), "uint8", 255),
    "query_features": (("query", "channel"), (900, 256), "float16", "NaN"),
    "query_positions": (("reference", "query", "xyz"), (7, 900, 3), "float32", "NaN"),
    "query_logits": (("query", "class"), (900, 10), "float16", "NaN"),
    "query_boxes": (("query", "code"), (900, 10), "float32", "NaN"),
    "valid": ((), (), "uint8", 0),
}
"""What a cache of BEVFormer-Base holds. A change here breaks every cache that exists: raise FORMAT_VERSION."""

FROZEN_FILES = {
    "bev/c.0.0.0.0.0": "1c6622e928db5129",
    "bev_offset/c.0.0.0": "dc690ab18db3ad21",
    "bev_scale/c.0.0.0": "100e925c4cbf21f9",
    "query_boxes/c.0.0.0.0": "2e1724f63988edcd",
    "query_features/c.0.0.0.0": "4d135dad373903d6",
    "temporal_offsets/c.0.0.0.0.0.0": "0733c389f9012ec8",
    "temporal_scale/c.0.0.0.0": "84f551b3672b6b88",
    "temporal_weights/c.0.0.0.0.0": "48d85cbf75a6c790",
    "valid/c.0.0": "6547b1b1cd13e320",
}
"""Start of the sha256 of every array file of one scene."""


def test_the_arrays_of_bevformer_base_are_frozen() -> None:
    specs = feature_specs(DETECTORS["bevformer-base"]())
    documents = array_documents(manifest_of(specs), SLOTS)
    found = {
        name: (
            tuple(document["dimension_names"][2:]),
            tuple(document["shape"][2:]),
            document["data_type"],
            document["fill_value"],
        )
        for name, document in documents.items()
    }
    assert found == BASE_INT8
    assert all(document["dimension_names"][:2] == ["scene", "step"] for document in documents.values())
    assert all(document["shape"][:2] == [3, 5] for document in documents.values())


def test_the_documented_table_is_the_frozen_one() -> None:
    for name, (dims, shape, dtype, fill) in BASE_INT8.items():
        rows = [line.replace("−", "-") for line in DOCUMENT.splitlines() if line.startswith("| `") and dtype in line]
        (told,) = [row for row in rows if f"`{name}`" in row]
        assert ", ".join(dims) in told
        assert ", ".join(map(str, shape)) in told
        assert told.endswith(f"| {fill} |")


@pytest.mark.parametrize(
    ("tier", "inner"),
    [("int8", ["bytes", "crc32c"]), ("archive", ["bytes", "zstd", "crc32c"])],
    ids=["int8", "archive"],
)
def test_codecs_and_chunks_are_frozen(tier: Tier, inner: list[str]) -> None:
    documents = array_documents(manifest_of(tier=tier), SLOTS)
    valid = documents.pop("valid")
    assert valid["chunk_grid"]["configuration"]["chunk_shape"] == [1, 5]
    assert [codec["name"] for codec in valid["codecs"]] == ["bytes", "crc32c"]
    for document in documents.values():
        frame = document["shape"][2:]
        (sharding,) = document["codecs"]
        assert document["chunk_grid"]["configuration"]["chunk_shape"] == [1, 5, *frame]
        assert document["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "."}}
        assert sharding["name"] == "sharding_indexed"
        assert sharding["configuration"]["chunk_shape"] == [1, 1, *frame]
        assert sharding["configuration"]["index_location"] == "end"
        assert [codec["name"] for codec in sharding["configuration"]["codecs"]] == inner
        assert [codec["name"] for codec in sharding["configuration"]["index_codecs"]] == ["bytes", "crc32c"]


def test_zarr_agrees_with_the_metadata_we_write(tmp_path: Path) -> None:
    """zarr-python, reading and writing it back, changes nothing."""
    write_cache(tmp_path, [])
    group = zarr.open_group(tmp_path, mode="r")
    for name, document in array_documents(manifest_of(), SLOTS).items():
        assert json.loads((tmp_path / name / "zarr.json").read_text()) == document
        assert json.loads(json.dumps(group[name].metadata.to_dict(), default=str)) == document


def exact_features(step: int) -> Features:
    """Numbers that every machine computes alike."""
    counts = {spec.name: np.arange(step, step + int(np.prod(spec.shape))).reshape(spec.shape) for spec in SPECS}
    features = {name: (count * 37 % 101 - 50).astype(np.float32) / 8 for name, count in counts.items()}
    return features | {"temporal_weights": (counts["temporal_weights"] % 65).astype(np.float32) / 64}


def test_the_bytes_of_a_scene_are_frozen(tmp_path: Path) -> None:
    writer = open_for_writing(tmp_path, manifest_of(), SLOTS)
    with writer.scene(SLOTS[0].name) as scene:
        for step in range(SLOTS[0].length):
            scene.append(exact_features(step))
        scene.commit(rows_of(SLOTS[0]))
    digests = {
        str(path.relative_to(tmp_path)): hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        for path in sorted(tmp_path.rglob("c.*"))
    }
    assert digests == FROZEN_FILES


@pytest.mark.parametrize("snippet", SNIPPETS, ids=[re.findall(r"import (\w+)", text)[0] for text in SNIPPETS])
def test_every_documented_snippet_runs(snippet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for peer in ("tensorstore", "zarrs"):
        if peer in snippet and importlib.util.find_spec(peer) is None:
            pytest.skip(f"{peer} is not a dependency; it is in the extra 'bench'")
    write_cache(tmp_path / "out" / "cache")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(snippet, names)
    expected = open_cache("out/cache").read(token_of(SLOTS[0], 2), "bev")
    if "frame" in names:
        np.testing.assert_allclose(np.asarray(names["frame"]), expected, atol=1e-6)
    else:
        stored = zarr.open_array("out/cache/bev", mode="r")
        found, wanted = (names["stored"], stored[0, 2]) if "stored" in names else (names["scene"], stored[0])
        np.testing.assert_array_equal(np.asarray(found), wanted)


def test_there_is_a_snippet_for_every_reader() -> None:
    assert [re.findall(r"import (\w+)", text)[0] for text in SNIPPETS] == [
        "zarr",
        "dask",
        "xarray",
        "tensorstore",
        "zarr",
        "open_cache",
    ]


@pytest.mark.parametrize("tier", ["int8", "float16", "archive"])
def test_stock_readers_see_every_frame_within_half_a_step(tmp_path: Path, tier: Tier) -> None:
    write_cache(tmp_path, SLOTS[:2], tier=tier)
    group = zarr.open_group(tmp_path, mode="r")
    dataset = xr.open_zarr(tmp_path)
    assert sorted(group.array_keys()) == sorted(dataset.data_vars)
    for spec in SPECS:
        formula = group[spec.name].attrs["dequantise"]["formula"]
        arrays = {name: da.from_zarr(str(tmp_path), component=name) for name in group.array_keys()}
        used = [name for name in arrays if name in formula.split()]
        for scene, slot in enumerate(SLOTS[:2]):
            for step in range(slot.length):
                exact = features_of(slot, step)[spec.name]
                by_zarr = eval(formula, {name: group[name][scene, step] for name in used})
                by_dask = eval(formula, {name: arrays[name][scene, step] for name in used})
                by_name = eval(formula, {name: dataset[name].isel(scene=scene, step=step) for name in used})
                for found in (by_zarr, by_dask.compute(), by_name.transpose(*spec.dims).values):
                    assert np.abs(found - exact).max() <= tolerance(spec, exact, tier)


def test_what_is_absent_is_nan_to_xarray_and_zero_in_valid(tmp_path: Path) -> None:
    write_cache(tmp_path, SLOTS[:1])
    dataset = xr.open_zarr(tmp_path, chunks=None)
    for name in set(dataset.data_vars) - {"valid"}:
        assert not np.isnan(dataset[name][0, :3]).any()
        assert np.isnan(dataset[name][0, 3:]).all()
        assert np.isnan(dataset[name][1:]).all()
    assert dataset.valid.values.tolist() == [[1, 1, 1, 0, 0], [0] * 5, [0] * 5]


def test_attributes_say_what_is_what(tmp_path: Path) -> None:
    writer = open_for_writing(tmp_path, manifest_of(), SLOTS)
    group = zarr.open_group(tmp_path, mode="r")
    assert group.attrs["format"] == "bev-teacher-cache"
    assert group.attrs["fingerprint"] == writer.manifest.fingerprint
    assert group.attrs["scenes"][1] == {"name": "scene-0002", "token": "token-2", "length": 5}
    assert group["temporal_offsets"].attrs["units"] == "cell"
    assert group["temporal_offsets"].attrs["dequantise"] == {
        "kind": "symmetric",
        "scale": "temporal_scale",
        "limit": 127,
        "formula": "temporal_offsets * temporal_scale",
    }
    assert group["bev_offset"].attrs["description"] == "offset of bev, one per frame and channel"
