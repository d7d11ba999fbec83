"""Batches join images, annotations and targets by sample token, in order, and name what is wrong."""

import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from train_fakes import grid_of
from train_world import CPU, SCENES, tiny_config, tiny_tables

from scenes.images import load_inputs
from scenes.scene_tables import SceneTables
from schemas.errors import DataError
from schemas.frame_index import frame_table
from schemas.frames import CameraInputs
from train.batches import BatchStream, TrainingBatch
from train.clips import Clip, ClipOptions, ClipPlan, ClipPosition, PlannedBatch
from train.stream import StreamOptions

CONFIG = tiny_config()


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> SceneTables:
    return tiny_tables(tmp_path_factory.getbasetemp() / "train-world")


def clip_of(tables: SceneTables, scene: str, steps: tuple[int, ...]) -> Clip:
    tokens = tables.sample_tokens(scene)
    return Clip(scene, steps, tuple(tokens[step] for step in steps))


def open_batches(tables: SceneTables, planned: Iterator[PlannedBatch], **options) -> BatchStream:
    def load(token: str, _occasion: str) -> CameraInputs:
        return load_inputs(tables.frame(token), tables.data_root, CONFIG.preprocessing)

    return BatchStream(planned, load, None, CONFIG.grid, StreamOptions(**options), CPU)


def first_batch(tables: SceneTables, *clips: Clip) -> TrainingBatch:
    endless = iter(lambda: PlannedBatch(clips, ClipPosition(0, len(clips))), None)
    with open_batches(tables, endless) as batches:
        return next(batches)


def test_clips_of_different_lengths_share_a_batch(tables: SceneTables) -> None:
    clips = [
        clip_of(tables, SCENES[0], (0, 1, 2)),
        clip_of(tables, SCENES[1], (0,)),
        clip_of(tables, SCENES[2], (0, 2)),
    ]
    batch = first_batch(tables, *clips)
    assert batch.sample_tokens == tuple(clip.sample_tokens[-1] for clip in clips)
    assert [step.samples for step in batch.history] == [(0,), (0, 2)]
    assert batch.previous_is_adjacent.tolist() == [True, False, False]
    assert batch.current.images.shape == (3, 6, 3, 32, 32)
    assert batch.current.scene_tokens == tuple(f"{scene} token" for scene in SCENES)
    assert batch.history[1].cameras.scene_tokens == (f"{SCENES[0]} token", f"{SCENES[2]} token")
    expected = load_inputs(tables.frame(clips[2].sample_tokens[0]), tables.data_root, CONFIG.preprocessing)
    torch.testing.assert_close(batch.history[1].cameras.images[1], torch.from_numpy(expected.images))
    assert [len(past) for past in batch.past_boxes] == [2, 0, 1]
    assert batch.teacher is None


def test_annotations_are_those_inside_the_range(tables: SceneTables) -> None:
    clip = clip_of(tables, SCENES[0], (1,))
    batch = first_batch(tables, clip)
    annotated = tables.frame(clip.sample_tokens[0]).boxes
    assert annotated is not None
    inside = (abs(annotated.center_m[:, :2]) < 51.2).all(axis=1)
    assert len(batch.boxes[0]) == inside.sum() > 0


@pytest.mark.parametrize(("threads", "look_ahead"), [(1, 1), (4, 3)])
def test_the_order_is_the_planned_one_whatever_the_threads(tables: SceneTables, threads: int, look_ahead: int) -> None:
    frames = pa.concat_tables([frame_table(tables.frames(name)) for name in SCENES])
    plan = ClipPlan(frames, ClipOptions(length=2), seed=0)
    planned = list(islice(plan.batches(ClipPosition(), 2), 9))
    with open_batches(
        tables, plan.batches(ClipPosition(), 2), decode_threads=threads, look_ahead=look_ahead
    ) as batches:
        for expected, batch in zip(planned, batches, strict=False):
            assert batch.sample_tokens == tuple(clip.sample_tokens[-1] for clip in expected.clips)
            assert batch.after == expected.after


def test_a_missing_image_in_the_middle_is_named_and_nothing_hangs(tmp_path: Path) -> None:
    tables = tiny_tables(tmp_path)
    token = tables.sample_tokens(SCENES[1])[2]
    frame = tables.frame(token)
    (tables.data_root / frame.camera_paths[4]).unlink()
    frames = frame_table(tables.frames(SCENES[1]))
    planned = ClipPlan(frames, ClipOptions(length=1), seed=0).batches(ClipPosition(), 1)
    seen: list[str] = []

    def go_through() -> None:
        with open_batches(tables, planned, look_ahead=3, decode_threads=3) as batches:
            for batch in batches:
                seen.extend(batch.sample_tokens)

    with pytest.raises(DataError, match=rf"sample {token} .*CAM_BACK_LEFT.*is missing"):
        go_through()
    assert token not in seen
    assert len(seen) < 4
    ours = ("image-decoder", "batch-assembler", "batch-starter")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(ours)]


def test_a_batch_that_cannot_be_started_fails_in_its_own_turn(tables: SceneTables) -> None:
    clip = clip_of(tables, SCENES[0], (0,))

    def one_then_none() -> Iterator[PlannedBatch]:
        yield PlannedBatch((clip,), ClipPosition())
        raise DataError("the second cannot be planned")

    with open_batches(tables, one_then_none(), look_ahead=1) as batches:
        assert next(batches).sample_tokens == clip.sample_tokens
        with pytest.raises(DataError, match="the second cannot be planned"):
            next(batches)


def test_grids_decide_what_is_inside(tables: SceneTables) -> None:
    small = grid_of(4, 4).model_copy(update={"extent_m": (-3.0, -3.0, -5.0, 3.0, 3.0, 3.0)})
    clip = clip_of(tables, SCENES[0], (0,))
    endless = iter(lambda: PlannedBatch((clip,), ClipPosition()), None)

    def load(token: str, _occasion: str) -> CameraInputs:
        return load_inputs(tables.frame(token), tables.data_root, CONFIG.preprocessing)

    with BatchStream(endless, load, None, small, StreamOptions(), CPU) as batches:
        (boxes,) = next(batches).boxes
    assert (abs(boxes.center_m[:, :2]) < 3).all()
