"""The stream gives what the reader gives, in order, whatever the threads; damage is named and nothing hangs."""

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from train_world import CPU, SCENES, fill_cache, tiny_tables

from cache import storage
from cache.reading import Cache, open_cache
from cache.writing import SceneSlot, open_for_writing
from scenes.scene_tables import SceneTables
from schemas.errors import CacheError
from schemas.features import FeatureSpec, Tier
from schemas.frame_index import FRAME_SCHEMA
from train import clip_reading
from train.clip_reading import read_clip
from train.clips import Clip, ClipOptions, ClipPlan
from train.stream import StreamOptions, TargetWindow, TeacherStream

FEATURES = ("bev", "temporal_offsets", "temporal_weights", "query_features", "query_boxes")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> SceneTables:
    return tiny_tables(tmp_path_factory.getbasetemp() / "train-world")


@pytest.fixture(scope="module", params=["int8", "float16", "archive"])
def cache(request: pytest.FixtureRequest, tables: SceneTables, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    tier: Tier = request.param
    return fill_cache(tmp_path_factory.mktemp("cache") / tier, tables, tier)


@pytest.fixture(scope="module")
def whole_cache(tables: SceneTables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill_cache(tmp_path_factory.mktemp("whole") / "cache", tables).path


@pytest.fixture
def own_cache(whole_cache: Path, tmp_path: Path) -> Cache:
    """A cache that a test may damage."""
    return open_cache(shutil.copytree(whole_cache, tmp_path / "cache"))


def batches_of(cache: Cache, batch_size: int) -> list[tuple[Clip, ...]]:
    clips = ClipPlan(cache.frames, ClipOptions(length=1), seed=0).epoch(0)
    return [tuple(clips[start : start + batch_size]) for start in range(0, len(clips), batch_size)]


def clip_to(cache: Cache, scene: str, last_step: int) -> Clip:
    (clip,) = (
        clip
        for clip in ClipPlan(cache.frames, ClipOptions(length=1), seed=0).epoch(0)
        if (clip.scene_name, clip.steps[-1]) == (scene, last_step)
    )
    return clip


def open_stream(cache: Cache, features=FEATURES, frames: int = 3, batch_size: int = 2, **options) -> TeacherStream:
    return TeacherStream(cache, TargetWindow(features, frames, batch_size), StreamOptions(**options), CPU)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("verify", [True, False])
def test_windows_equal_the_reader(cache: Cache, threads: int, verify: bool) -> None:
    tokens = {(row["scene_name"], row["step"]): row["sample_token"] for row in cache.frames.to_pylist()}
    with open_stream(cache, read_threads=threads, verify_checksums=verify, look_ahead=2) as stream:
        planned = batches_of(cache, batch_size=2)
        pending = [stream.start(planned[0])]
        for number, clips in enumerate(planned):
            if number + 1 < len(planned):
                pending.append(stream.start(planned[number + 1]))
            targets = stream.collect(pending.pop(0))
            for name in FEATURES:
                window = targets.window(name)
                torch.testing.assert_close(window[:, -1], targets.current(name), rtol=0, atol=0)
                for row, clip in enumerate(clips):
                    for frame, step in enumerate(range(clip.steps[-1] - 2, clip.steps[-1] + 1)):
                        assert targets.valid[row, frame] == (step >= 0)
                        expected = cache.read(tokens[clip.scene_name, step], name) if step >= 0 else 0 * window[0, 0]
                        np.testing.assert_allclose(window[row, frame].numpy(), expected, rtol=1e-6, atol=1e-7)


def test_ego_motion_follows_the_frames(cache: Cache) -> None:
    rows = {
        (row["scene_name"], row["step"]): np.reshape(row["previous_from_current"], (4, 4))
        for row in cache.frames.to_pylist()
    }
    with open_stream(cache, features=("bev",), frames=3, batch_size=1) as stream:
        targets = stream.collect(stream.start([clip_to(cache, SCENES[1], 1)]))
    expected = [np.eye(4), np.eye(4), rows[SCENES[1], 1]]
    np.testing.assert_array_equal(targets.previous_from_current[0].numpy(), expected)
    assert not np.allclose(expected[-1], np.eye(4))


def test_frames_before_a_scene_do_not_keep_what_was_in_the_slot(own_cache: Cache) -> None:
    with open_stream(own_cache, features=("bev",), frames=3, batch_size=1, look_ahead=1) as stream:
        for _ in range(3):
            stream.collect(stream.start([clip_to(own_cache, SCENES[0], 3)]))
        targets = stream.collect(stream.start([clip_to(own_cache, SCENES[0], 0)]))
        assert (targets.window("bev")[0, :2] == 0).all()
        assert targets.valid.tolist() == [[False, False, True]]


def damage(cache: Cache, array: str, step: int) -> None:
    shard = cache.shard(SCENES[1], array)
    with shard.path.open("r+b") as file:
        file.seek(int(shard.offsets[step]) + 5)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def test_a_damaged_frame_is_named_where_its_batch_is_collected(own_cache: Cache) -> None:
    damage(own_cache, "bev", step=2)
    with open_stream(own_cache, batch_size=1) as stream:
        stream.collect(stream.start([clip_to(own_cache, SCENES[1], 1)]))
        bad = stream.start([clip_to(own_cache, SCENES[1], 2)])
        later = stream.start([clip_to(own_cache, SCENES[0], 2)])
        with pytest.raises(CacheError, match=rf"{SCENES[1]}, array bev, step 2.*make cache-teacher"):
            stream.collect(bad)
        del later


def test_damage_passes_unseen_only_when_asked_to(own_cache: Cache) -> None:
    damage(own_cache, "bev", step=2)
    with open_stream(own_cache, verify_checksums=False, batch_size=1) as stream:
        stream.collect(stream.start([clip_to(own_cache, SCENES[1], 2)]))


def test_frames_larger_than_a_block_are_verified_as_they_come(
    own_cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = own_cache.shard(SCENES[1], "bev")
    whole, in_blocks = np.empty((2, 3, *shard.shape), dtype=np.int8)
    read_clip(shard, 1, whole, verify=True)
    monkeypatch.setattr(clip_reading, "LARGE_FRAME_BYTES", 0)
    monkeypatch.setattr(storage, "BLOCK_BYTES", 100)  # frames have 864 bytes
    read_clip(shard, 1, in_blocks, verify=True)
    np.testing.assert_array_equal(in_blocks, whole)
    damage(own_cache, "bev", step=2)
    with pytest.raises(CacheError, match=rf"{SCENES[1]}, array bev, step 2: expected crc32c"):
        read_clip(shard, 1, in_blocks, verify=True)
    os.truncate(shard.path, int(shard.offsets[1]) + 150)
    with pytest.raises(CacheError, match=rf"{SCENES[1]}, array bev, step 1: the file ends before the frame does"):
        read_clip(shard, 1, in_blocks, verify=True)


def test_a_file_cut_short_or_gone_after_opening_is_named(own_cache: Cache) -> None:
    shard = own_cache.shard(SCENES[0], "bev")
    into = np.empty((4, *shard.shape), dtype=np.int8)
    os.truncate(shard.path, int(shard.offsets[3]) + 10)
    with pytest.raises(CacheError, match=rf"{SCENES[0]}, array bev, step 3"):
        read_clip(shard, 0, into, verify=False)
    shard.path.unlink()
    with pytest.raises(CacheError, match=rf"{SCENES[0]}, array bev, step 0"):
        read_clip(shard, 0, into, verify=False)


def test_a_feature_or_scene_the_cache_lacks_is_refused(own_cache: Cache, tables: SceneTables, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"lacks the features temporal_target.*--arrays"):
        open_stream(own_cache, features=("bev", "temporal_target"))
    partial = fill_cache(tmp_path / "partial", tables, scenes=SCENES[:1])
    stranger = clip_to(own_cache, SCENES[1], 2)
    with open_stream(own_cache, features=("bev",)) as stream:
        stream._cache = partial
        pending = stream.start([stranger])
        with pytest.raises(CacheError, match=rf"not in the cache .*{SCENES[1]}"):
            stream.collect(pending)


def test_threads_and_files_are_closed_in_the_end(own_cache: Cache) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with open_stream(own_cache, read_threads=3) as stream:
        stream.start(batches_of(own_cache, 2)[0])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cache-reader")]
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_clip_of_more_frames_than_one_call_takes(tables: SceneTables, tmp_path: Path) -> None:
    spec = FeatureSpec(name="tiny", dims=("x",), shape=(3,), encoding="float32", description="A few numbers.")
    manifest = fill_cache(tmp_path / "model", tables).manifest.model_copy(update={"features": (spec,)})
    steps = 1100
    values = np.arange(3 * steps, dtype=np.float32).reshape(steps, 3)
    writer = open_for_writing(tmp_path / "long", manifest, [SceneSlot("scene-0001", "t", steps)])
    scene_writer = writer.scene("scene-0001")
    with scene_writer as scene:
        for row in values:
            scene.append({"tiny": row})
        frame = tables.frames(SCENES[0])[0]
        rows = [
            {
                "scene_name": "scene-0001",
                "scene_token": "t",
                "sample_token": f"sample {step}",
                "step": step,
                "timestamp_us": frame.timestamp_us + step,
                "global_from_lidar": np.eye(4).ravel().tolist(),
                "previous_from_current": np.eye(4).ravel().tolist(),
                "has_previous": step > 0,
                "has_images": True,
                "has_labels": True,
            }
            for step in range(steps)
        ]
        scene.commit(pa.Table.from_pylist(rows, schema=FRAME_SCHEMA))
    into = np.empty((steps - 1, 3), dtype=np.float32)
    read_clip(open_cache(tmp_path / "long").shard("scene-0001", "tiny"), 1, into, verify=True)
    np.testing.assert_array_equal(into, values[1:])
