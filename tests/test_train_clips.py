"""The clip plan: every usable frame last once per epoch, inside its scene, the same sequence from any place."""

from itertools import islice

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import DataError
from schemas.frame_index import FRAME_SCHEMA
from train.clips import Clip, ClipOptions, ClipPlan, ClipPosition

IDENTITY = [float(row == col) for row in range(4) for col in range(4)]


def frame_rows(lengths: list[int], without_images: set[int] = frozenset(), without_labels: set[int] = frozenset()):
    rows = []
    for scene, length in enumerate(lengths):
        for step in range(length):
            number = len(rows)
            rows.append(
                {
                    "scene_name": f"scene-{scene:04d}",
                    "scene_token": f"token-{scene}",
                    "sample_token": f"s{scene}-{step}",
                    "step": step,
                    "timestamp_us": step * 500_000,
                    "global_from_lidar": IDENTITY,
                    "previous_from_current": IDENTITY,
                    "has_previous": step > 0,
                    "has_images": number not in without_images,
                    "has_labels": number not in without_labels,
                }
            )
    return pa.Table.from_pylist(rows, schema=FRAME_SCHEMA)


def epoch_over_ranks(frames: pa.Table, options: ClipOptions, ranks: int, epoch: int) -> list[Clip]:
    return [clip for rank in range(ranks) for clip in ClipPlan(frames, options, 3, rank, ranks).epoch(epoch)]


plans = {
    "lengths": st.lists(st.integers(1, 9), min_size=1, max_size=5),
    "length": st.integers(1, 5),
    "mode": st.sampled_from(["consecutive", "drop-one"]),
    "ranks": st.integers(1, 4),
    "epoch": st.integers(0, 3),
}


@given(**plans)
def test_each_frame_is_last_once_per_epoch_but_for_the_stated_repeats(lengths, length, mode, ranks, epoch):
    frames = frame_rows(lengths)
    options = ClipOptions(length=length, mode=mode)
    clips = epoch_over_ranks(frames, options, ranks, epoch)
    plan = ClipPlan(frames, options, 3, 0, ranks)
    last = sorted(clip.sample_tokens[-1] for clip in clips)
    assert set(last) == set(frames["sample_token"].to_pylist())
    assert plan.repeats < ranks
    assert len(last) == frames.num_rows + plan.repeats == plan.clips_per_epoch * ranks


@given(**plans)
def test_a_clip_is_ascending_keyframes_of_one_scene(lengths, length, mode, ranks, epoch):
    options = ClipOptions(length=length, mode=mode)
    for clip in epoch_over_ranks(frame_rows(lengths), options, ranks, epoch):
        scene = int(clip.scene_name.removeprefix("scene-"))
        assert clip.sample_tokens == tuple(f"s{scene}-{step}" for step in clip.steps)
        available = range(max(0, clip.steps[-1] - length + (mode == "consecutive")), clip.steps[-1] + 1)
        missing = sorted(set(available) - set(clip.steps))
        assert list(clip.steps) == sorted(set(clip.steps))
        assert set(clip.steps) <= set(available)
        assert len(missing) <= (mode == "drop-one")
        assert len(clip.steps) <= length
        assert clip.previous_is_adjacent == (clip.steps[-1] - 1 in clip.steps)


@given(
    lengths=plans["lengths"],
    mode=plans["mode"],
    ranks=plans["ranks"],
    batch_size=st.integers(1, 4),
    taken=st.integers(0, 12),
)
def test_resuming_from_any_place_goes_on_with_the_same_batches(lengths, mode, ranks, batch_size, taken):
    plan = ClipPlan(frame_rows(lengths), ClipOptions(length=3, mode=mode), 5, ranks - 1, ranks)
    whole = list(islice(plan.batches(ClipPosition(), batch_size), taken + 5))
    place = whole[taken - 1].after if taken else ClipPosition()
    assert list(islice(plan.batches(place, batch_size), 5)) == whole[taken:]


def test_the_order_depends_on_seed_and_epoch_and_not_on_the_row_order():
    frames = frame_rows([20, 20])
    options = ClipOptions(length=2)
    first = ClipPlan(frames, options, 0).epoch(0)
    assert first != ClipPlan(frames, options, 0).epoch(1)
    assert first != ClipPlan(frames, options, 1).epoch(0)
    shuffled = frames.take(list(reversed(range(frames.num_rows))))
    assert first == ClipPlan(shuffled, options, 0).epoch(0)


def test_drop_one_leaves_out_each_of_the_preceding_frames_equally_often():
    plan = ClipPlan(frame_rows([4]), ClipOptions(length=3, mode="drop-one"), 0)
    left_out = [0, 0, 0]
    for epoch in range(300):
        (clip,) = [clip for clip in plan.epoch(epoch) if clip.steps[-1] == 3]
        (missing,) = {0, 1, 2} - set(clip.steps)
        left_out[missing] += 1
    assert sum(left_out) == 300
    assert min(left_out) > 70


def test_a_frame_without_images_ends_history_and_one_without_labels_is_history_only():
    frames = frame_rows([6], without_images={2}, without_labels={4})
    clips = {clip.steps[-1]: clip.steps for clip in ClipPlan(frames, ClipOptions(length=4), 0).epoch(0)}
    assert clips == {0: (0,), 1: (0, 1), 3: (3,), 5: (3, 4, 5)}


def test_nothing_to_train_on_is_refused():
    frames = frame_rows([2], without_labels={0, 1})
    with pytest.raises(DataError, match=r"of 2 frames \(scenes: scene-0000\) none has both images and labels.*--split"):
        ClipPlan(frames, ClipOptions(), 0)


def test_clips_of_a_cut_keep_the_supervised_frame():
    clip = Clip("scene-0000", (3, 4, 5), ("a", "b", "c"))
    assert clip.without_history() == Clip("scene-0000", (5,), ("c",))
