"""A cache read over HTTP and through fsspec gives what the local one gives; what cannot work says why."""

import json
import pickle
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from cache_fakes import SLOTS, SPECS, token_of, write_cache
from cache_no_fsync import no_fsync
from program import Program
from range_server import serving

from cache import open_cache, remote_file
from cache.remote_file import RemoteFile, remote_root
from cache.writing import open_for_writing
from schemas.errors import CacheError, DiskError
from schemas.features import Tier
from train.clips import Clip
from train.stream import StreamOptions, TargetWindow, TeacherStream

__all__ = ["no_fsync"]

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A served folder with a cache of which the first two scenes are made."""
    writer = write_cache(tmp_path / "served" / "cache", SLOTS[:2])
    writer.write_parameters({"queries": np.arange(6, dtype=np.float32).reshape(2, 3)})
    return tmp_path / "served" / "cache"


@pytest.fixture
def url(root: Path) -> Iterator[str]:
    with serving(root.parent) as (host, _):
        yield f"{host}/cache"


@pytest.fixture
def memory(root: Path) -> Iterator[str]:
    """The same cache in fsspec's in-memory file system."""
    name, files = f"cache-{uuid.uuid4().hex}", fsspec.filesystem("memory")
    for path in root.rglob("*"):
        if path.is_file() and ".writers" not in path.parts:
            files.pipe_file(f"/{name}/{path.relative_to(root)}", path.read_bytes())
    yield f"memory://{name}"
    files.rm(f"/{name}", recursive=True)


@pytest.mark.parametrize("tier", ["int8", "float16", "archive"])
def test_every_frame_over_http_is_the_local_one(tmp_path: Path, tier: Tier) -> None:
    write_cache(tmp_path / "cache", SLOTS[:2], tier=tier)
    local = open_cache(tmp_path / "cache")
    with serving(tmp_path) as (host, _):
        remote = pickle.loads(pickle.dumps(open_cache(f"{host}/cache/")))
        assert remote.frames.equals(local.frames)
        assert remote.scene_names == local.scene_names
        for spec in SPECS:
            for token in local.frames["sample_token"].to_pylist():
                np.testing.assert_array_equal(remote.read(token, spec.name), local.read(token, spec.name))


def test_fsspec_file_systems_are_listed_and_need_no_frame_index(memory: str, root: Path) -> None:
    fsspec.filesystem("memory").rm(f"{memory.removeprefix('memory:/')}/frames.parquet")
    remote, local = open_cache(memory), open_cache(root)
    assert remote.frames.equals(local.frames)
    token = token_of(SLOTS[1], 4)
    np.testing.assert_array_equal(remote.read(token, "bev"), local.read(token, "bev"))
    np.testing.assert_array_equal(remote.parameters()["queries"], local.parameters()["queries"])
    fsspec.filesystem("memory").rm(f"{memory.removeprefix('memory:/')}/receipts/scene-0001.parquet")
    assert open_cache(memory).scene_names == ("scene-0002",)


def test_one_frame_asks_for_its_bytes_only(root: Path) -> None:
    with serving(root.parent) as (host, requests):
        cache = open_cache(f"{host}/cache")
        assert requests == ["/cache/zarr.json", "/cache/zarr.json [0-0]", "/cache/frames.parquet"]
        requests.clear()
        cache.read(token_of(SLOTS[1], 2), "query_features")
        shard = cache.shard("scene-0002", "query_features")
        first = int(shard.offsets[2])
        assert requests[0] == "/cache/receipts/scene-0002.parquet"
        assert requests[2] == f"/cache/query_features/c.1.0.0.0 [{first}-{first + 7 * 6 * 2 - 1}]"


def test_a_teacher_stream_reads_over_http(url: str, root: Path) -> None:
    window = TargetWindow(("bev", "query_boxes"), frames=3, batch_size=2)
    clips = [Clip("scene-0002", (4,), (token_of(SLOTS[1], 4),)), Clip("scene-0001", (1,), (token_of(SLOTS[0], 1),))]
    found = []
    for cache in (open_cache(url), open_cache(root)):
        with TeacherStream(cache, window, StreamOptions(), torch.device("cpu")) as stream:
            targets = stream.collect(stream.start(clips))
            found.append({name: targets.window(name) for name in window.features})
    for name in window.features:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=0, atol=0)


def test_a_server_without_range_support_is_refused_on_opening(root: Path) -> None:
    with serving(root.parent, ranges=False) as (host, requests):
        with pytest.raises(DiskError, match=r"does not honour Range requests: asked for 1 bytes.*copy the folder"):
            open_cache(f"{host}/cache")
        assert [request for request in requests if "c." in request] == []


def test_what_is_not_there_is_told_with_its_address(url: str, root: Path) -> None:
    with pytest.raises(CacheError, match=r"no teacher cache at http://127.*/elsewhere: .*folder that holds its zarr"):
        open_cache(url.replace("/cache", "/elsewhere"))
    cache = open_cache(url)
    (root / "bev" / "c.1.0.0.0.0").unlink()
    with pytest.raises(CacheError, match=r"scene-0002, array bev: .*missing \(http.*make verify-cache.*then copy it"):
        cache.read(token_of(SLOTS[1], 0), "bev")
    (root / "receipts" / "scene-0001.parquet").unlink()
    with pytest.raises(CacheError, match=r"scene-0001 is no longer in the cache: its receipt http.* is gone"):
        cache.read(token_of(SLOTS[0], 0), "bev")
    (root / "teacher.safetensors").unlink()
    with pytest.raises(CacheError, match=r"http.*teacher.safetensors is missing"):
        cache.parameters()
    (root / "frames.parquet").unlink()
    with pytest.raises(CacheError, match=r"http.*frames.parquet is missing .* over HTTP it alone tells"):
        open_cache(url)


@pytest.mark.parametrize("size", [-9, -400, 5])
def test_a_shard_of_another_size_is_noticed(url: str, root: Path, size: int) -> None:
    shard = root / "bev" / "c.1.0.0.0.0"
    data = shard.read_bytes()
    shard.write_bytes(data[:size] if size < 0 else data + bytes(size))
    expected = rf"expected {len(data)} bytes as in the receipt, found {len(data) + size} \(http"
    with pytest.raises(CacheError, match=expected):
        open_cache(url).read(token_of(SLOTS[1], 0), "bev")


def test_damage_is_named_over_http_too(url: str, root: Path) -> None:
    cache = open_cache(url)
    shard = root / "bev" / "c.1.0.0.0.0"
    data = bytearray(shard.read_bytes())
    data[int(cache.shard("scene-0002", "bev").offsets[3]) + 7] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CacheError, match=r"scene-0002, array bev, step 3: expected crc32c .* \(http"):
        cache.read(token_of(SLOTS[1], 3), "bev")


def test_a_host_that_does_not_answer_is_told() -> None:
    with serving(REPOSITORY / "docs") as (host, _):
        pass  # the port was free a moment ago and nobody listens there now
    with pytest.raises(DiskError, match=rf"reading {host}/cache/zarr.json failed: .*check the address"):
        open_cache(f"{host}/cache")


def test_plain_zarr_and_xarray_read_a_served_cache(url: str, root: Path) -> None:
    expected = open_cache(root).read(token_of(SLOTS[1], 2), "bev")
    group = zarr.open_group(url, mode="r")
    by_zarr = group["bev"][1, 2] * group["bev_scale"][1, 2] + group["bev_offset"][1, 2]
    np.testing.assert_allclose(by_zarr, expected, atol=1e-6)
    step = xr.open_zarr(url, chunks=None).isel(scene=1, step=2)
    np.testing.assert_allclose(step.bev * step.bev_scale + step.bev_offset, expected, atol=1e-6)
    np.testing.assert_array_equal(open_cache(url).xarray().bev.isel(scene=1, step=2), expected)
    np.testing.assert_array_equal(open_cache(url).dask("bev")[1, 2], group["bev"][1, 2])


@pytest.mark.slow
def test_a_student_is_trained_over_http(tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(tiny_world, tmp_path, monkeypatch)
    program.succeeded("cache-teacher", "--untrained", "--cache", "served/cache")
    allow = "--allow-untrained-teacher"
    program.succeeded("train-student", allow, "--cache", "served/cache", "--out", "local")
    with serving(tmp_path / "served") as (host, _):
        program.succeeded("train-student", allow, "--cache", f"{host}/cache", "--out", "remote")
    local, remote = (
        [json.loads(line)["loss"] for line in (tmp_path / out / "metrics.jsonl").read_text().splitlines()]
        for out in ("local", "remote")
    )
    assert local == remote


def test_a_busy_host_is_asked_again_but_not_for_ever(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_file, "_PAUSES_S", (0.0, 0.0))
    with serving(root.parent, busy=2) as (host, requests):
        assert open_cache(f"{host}/cache").read(token_of(SLOTS[0], 0), "query_boxes").shape == (7, 10)
        assert requests.count("/cache/frames.parquet") == 3
    with serving(root.parent, busy=3) as (host, requests):
        with pytest.raises(DiskError, match=r"zarr.json failed: 503.*run the same command again"):
            open_cache(f"{host}/cache")
        assert len(requests) == 3


def test_an_unknown_scheme_or_a_missing_package_names_the_remedy(root: Path) -> None:
    with pytest.raises(DiskError, match=r"reading nothing://bucket/cache/zarr.json failed: .*nothing"):
        open_cache("nothing://bucket/cache")
    program = (
        "import sys; sys.modules['aiohttp'] = None\n"
        "from cache import open_cache\n"
        "try: open_cache('https://localhost/cache')\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert "needs a package that is not installed" in done.stdout
    assert "pip install -e '.[s3]'" in done.stdout


def test_urls_are_told_from_folders() -> None:
    assert remote_root("out/cache") is None
    assert remote_root(Path("/data/s3/cache")) is None
    assert remote_root("s3://bucket/cache/") == RemoteFile("s3://bucket/cache")
    assert remote_root(Path("https://host/cache")) == RemoteFile("https://host/cache")  # pathlib drops a slash
    assert RemoteFile("s3://bucket/cache/bev/c.0").parent.parent == RemoteFile("s3://bucket/cache")


def test_a_cache_is_not_written_to_a_url(root: Path) -> None:
    manifest = open_cache(root).manifest
    with pytest.raises(CacheError, match=r"s3://bucket/cache: a cache is written to a local folder"):
        open_for_writing(Path("s3://bucket/cache"), manifest, SLOTS)


def test_a_copy_without_the_writers_folder_is_whole(url: str, root: Path) -> None:
    shutil.rmtree(root / ".writers")
    assert open_cache(url).read(token_of(SLOTS[0], 0), "bev").shape == (4, 5, 6)
