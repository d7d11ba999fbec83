"""Training on streams: scenes side by side, each step with the memory that the step before it left."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_train_clips import frame_rows
from train_world import CPU, SCENES, tiny_detector, tiny_tables

from detectors.outputs import TemporalState
from scenes.scene_tables import SceneTables
from train.batches import BatchStream, TrainingBatch
from train.clips import ClipOptions, ClipPlan, ClipPosition, PlannedBatch
from train.distiller_catalogue import DistillationOptions, build_distillers
from train.learner import Learner
from train.loop import train
from train.metrics_log import StepReport
from train.options import TrainOptions
from train.run import TrainingRun, clip_plan, planned_batches
from train.stream import StreamOptions

STREAM = ClipOptions(mode="stream")
OPTIONS = TrainOptions(steps=9, batch_size=2, clips=STREAM, history_from_step=2, log_every=1, checkpoint_every=100)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> SceneTables:
    return tiny_tables(tmp_path_factory.getbasetemp() / "train-world")


def first_epoch(plan: ClipPlan, batch_size: int) -> list[PlannedBatch]:
    batches = []
    for batch in plan.streams(ClipPosition(), batch_size):
        if batch.after.epoch > 0:
            return batches
        batches.append(batch)
    raise AssertionError("streams are endless")


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), batch_size=st.integers(1, 4))
def test_every_row_runs_through_whole_scenes_in_time_order(lengths: list[int], batch_size: int) -> None:
    batches = first_epoch(ClipPlan(frame_rows(lengths), STREAM, seed=3), batch_size)
    width = min(batch_size, len(lengths))
    assert {len(batch.clips) for batch in batches} == {width}
    for row in range(width):
        before = None
        for clip in (batch.clips[row] for batch in batches):
            (step,) = clip.steps
            assert clip.sample_tokens == (f"s{int(clip.scene_name[-4:])}-{step}",)
            if step == 0:
                assert clip.carried_from is None
            else:
                assert (before.scene_name, before.steps) == (clip.scene_name, (step - 1,))
                assert clip.carried_from == step - 1
                assert clip.previous_is_adjacent
            before = clip
    seen = [clip.sample_tokens for batch in batches for clip in batch.clips]
    assert len(seen) == len(set(seen)), "a frame comes twice in an epoch"


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5), batch_size=st.integers(1, 3), skip=st.integers(0, 9)
)
def test_streams_go_on_from_any_place(lengths: list[int], batch_size: int, skip: int) -> None:
    plan = ClipPlan(frame_rows(lengths), STREAM, seed=1)
    whole = list(islice(plan.streams(ClipPosition(), batch_size), skip + 5))
    start = whole[skip - 1].after if skip else ClipPosition()
    assert list(islice(plan.streams(start, batch_size), 5)) == whole[skip:]


def test_an_epoch_of_equal_scenes_leaves_nothing_out_and_is_shuffled() -> None:
    plan = ClipPlan(frame_rows([5] * 6), STREAM, seed=0)
    epochs = list(islice(plan.streams(ClipPosition(), 3), 20))
    first, second = epochs[:10], epochs[10:]
    for epoch in (first, second):
        assert len({clip.sample_tokens for batch in epoch for clip in batch.clips}) == 30
    assert [batch.clips for batch in first] != [batch.clips for batch in second]


def test_ranks_share_the_scenes() -> None:
    frames = frame_rows([4] * 6)
    scenes = [
        {clip.scene_name for batch in first_epoch(ClipPlan(frames, STREAM, 0, rank, 2), 3) for clip in batch.clips}
        for rank in range(2)
    ]
    assert [len(names) for names in scenes] == [3, 3]
    assert not scenes[0] & scenes[1]


def test_single_frames_come_first_and_streams_with_the_next_epoch() -> None:
    plan = ClipPlan(frame_rows([4, 4]), STREAM, seed=0)
    planned = list(islice(planned_batches(plan, OPTIONS, 0, ClipPosition()), 4))
    assert all(clip.carried_from is None for batch in planned[:2] for clip in batch.clips)
    assert [clip.steps for clip in planned[2].clips] == [(0,), (0,)]
    assert planned[2].after == ClipPosition(1, 2)
    assert [clip.carried_from for clip in planned[3].clips] == [0, 0]
    for done in range(1, 4):
        resumed = planned_batches(plan, OPTIONS, done, planned[done - 1].after)
        assert next(resumed) == planned[done]


class _Observed(Learner):
    """Keeps the memory it was given."""

    def forward(self, batch, left):
        terms, memory = super().forward(batch, left)
        self.given.append((batch.current.scene_tokens, batch.continues, left, memory))
        return terms, memory


def test_a_step_sees_what_the_step_before_left(tables: SceneTables, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("train.loop.Learner", _Observed)
    _Observed.given = []
    options = OPTIONS.model_copy(update={"history_from_step": 0, "steps": 3})
    quietly(run_of(tables, tmp_path / "out", options))
    assert _Observed.given[0][2] is None
    for before, now in zip(_Observed.given, _Observed.given[1:], strict=False):
        assert now[2] is before[3]
        if any(now[1]):
            assert before[0][now[1].index(True)] == now[0][now[1].index(True)]


def test_memory_reaches_only_the_samples_that_continue(tables: SceneTables) -> None:
    detector = tiny_detector()
    seen: list[TemporalState | None] = []

    def observed(_batch, previous):
        seen.append(previous)
        raise _StopError

    detector.features = observed  # type: ignore[method-assign]
    learner = Learner(detector, build_distillers(DistillationOptions(), None), "float32")
    plan = clip_plan(run_of(tables, Path("unused"), OPTIONS))
    batch = _batch(tables, next(plan.streams(ClipPosition(), 2)))
    cells = detector.config.grid.rows * detector.config.grid.cols
    left = TemporalState(
        bev=torch.ones(2, cells, detector.config.embed_dims),
        position_m=torch.zeros(2, 3, dtype=torch.float64),
        yaw_deg=torch.zeros(2, dtype=torch.float64),
        scene_tokens=tuple(reversed(batch.current.scene_tokens)),
    )
    for continues, expected in (((False, False), None), ((False, True), ("", batch.current.scene_tokens[1]))):
        seen.clear()
        with pytest.raises(_StopError):
            learner(replace(batch, continues=continues), left)
        assert (seen[0] and seen[0].scene_tokens) == expected


def test_stopping_and_resuming_in_the_middle_of_a_stream_is_bit_for_bit_one_run(
    tables: SceneTables, tmp_path: Path
) -> None:
    quietly(run_of(tables, tmp_path / "whole", OPTIONS))
    for stop in (1, 2, 4, 9):
        reports = quietly(run_of(tables, tmp_path / "parts", OPTIONS), stop)[1]
    assert [report.step for report in reports] == [5, 6, 7, 8, 9]
    first, second = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "parts"))
    assert first == second


def run_of(tables: SceneTables, out: Path, options: TrainOptions) -> TrainingRun:
    return TrainingRun(tiny_detector(), tables, SCENES, None, options, out, CPU)


def quietly(run: TrainingRun, max_steps: int | None = None):
    reports: list[StepReport] = []
    return train(run, reports.append, max_steps), reports


class _StopError(Exception):
    pass


def _batch(tables: SceneTables, planned: PlannedBatch) -> TrainingBatch:
    run = run_of(tables, Path("unused"), OPTIONS)
    with BatchStream(
        iter([planned, planned, planned]), run.load_frame, None, run.detector.config.grid, StreamOptions(), CPU
    ) as stream:
        return next(stream)
