"""Augmentation belongs to its place in the run: the same after a resume and with any threads, and never twice."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor
from train_world import CPU, SCENES, tiny_detector, tiny_tables

from scenes.images import load_inputs
from scenes.photometric import PhotometricOptions
from scenes.scene_tables import SceneTables
from train.augmentation import AugmentationOptions, frame_distortions
from train.batches import BatchStream
from train.clips import Clip, ClipOptions, ClipPosition, PlannedBatch
from train.loop import train
from train.metrics_log import StepReport
from train.options import TrainOptions
from train.run import TrainingRun, clip_plan
from train.stream import StreamOptions

PUBLISHED = PhotometricOptions()
ALWAYS = PhotometricOptions(probability=1)
ON = AugmentationOptions(photometric=PUBLISHED)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> SceneTables:
    return tiny_tables(tmp_path_factory.getbasetemp() / "train-world")


@pytest.fixture
def run_of(tables: SceneTables, tmp_path: Path) -> Callable[..., TrainingRun]:
    def build(out: str = "out", **options: object) -> TrainingRun:
        values = {"steps": 4, "batch_size": 2, "clips": ClipOptions(length=3), "augmentation": ON} | options
        return TrainingRun(
            tiny_detector(), tables, SCENES, None, TrainOptions.model_validate(values), tmp_path / out, CPU
        )

    return build


def test_draws_differ_in_seed_occasion_frame_and_camera_and_in_nothing_else() -> None:
    drawn = frame_distortions(ALWAYS, 3, "0/clip", "frame")
    assert drawn == frame_distortions(ALWAYS, 3, "0/clip", "frame")
    assert len(set(drawn)) == 6
    for other in ((4, "0/clip", "frame"), (3, "1/clip", "frame"), (3, "0/clip", "other")):
        assert not set(drawn) & set(frame_distortions(ALWAYS, *other))


def images_of(run: TrainingRun, start: ClipPosition, count: int, threads: int = 2) -> list[Tensor]:
    """Supervised and history images of some batches, flat."""
    planned = clip_plan(run).batches(start, run.options.batch_size)
    stream = StreamOptions(decode_threads=threads)
    with BatchStream(planned, run.load_frame, None, run.detector.config.grid, stream, CPU) as batches:
        return [
            torch.cat([cameras.images.flatten() for cameras in [*(s.cameras for s in batch.history), batch.current]])
            for batch in islice(batches, count)
        ]


def test_a_batch_is_the_same_with_any_threads_and_after_any_resumption(run_of: Callable[..., TrainingRun]) -> None:
    run = run_of()
    expected = images_of(run, ClipPosition(), 5, threads=1)
    for ours, theirs in zip(expected, images_of(run, ClipPosition(), 5, threads=4), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    for ours, theirs in zip(expected[3:], images_of(run, ClipPosition(0, 6), 2), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_history_is_distorted_too_and_anew_for_every_clip_and_epoch(run_of: Callable[..., TrainingRun]) -> None:
    run = run_of()
    tokens = run.tables.sample_tokens(SCENES[0])
    clips = [Clip(SCENES[0], (0, 1), tokens[:2]), Clip(SCENES[0], (0, 1, 2), tokens[:3])]
    planned = [PlannedBatch(tuple(clips), ClipPosition(epoch, 2)) for epoch in (0, 1)]
    with BatchStream(
        iter([*planned, planned[0], planned[0]]),
        run.load_frame,
        None,
        run.detector.config.grid,
        StreamOptions(look_ahead=1),
        CPU,
    ) as batches:
        first, second = next(batches), next(batches)
    plain = load_inputs(run.tables.frame(tokens[0]), run.tables.data_root, run.detector.config.preprocessing).images
    as_history = [first.history[0].cameras.images[0], first.history[1].cameras.images[0]]
    assert not any(torch.equal(images, torch.from_numpy(plain)) for images in as_history)
    assert not torch.equal(*as_history)
    assert not torch.equal(first.current.images, second.current.images)


def test_it_is_off_by_default(run_of: Callable[..., TrainingRun]) -> None:
    run = run_of(augmentation=AugmentationOptions())
    token = run.tables.sample_tokens(SCENES[0])[0]
    plain = load_inputs(run.tables.frame(token), run.tables.data_root, run.detector.config.preprocessing)
    torch.testing.assert_close(run.load_frame(token, "0/any").images, plain.images, rtol=0, atol=0)
    assert TrainOptions(steps=1).augmentation.photometric is None
    assert "augmentation" not in TrainOptions(steps=1).what_changes_numbers()
    assert TrainOptions(steps=1, augmentation=ON).what_changes_numbers()["augmentation"] == ON.model_dump(mode="json")


def test_an_augmented_run_goes_on_as_if_it_had_never_stopped(run_of: Callable[..., TrainingRun]) -> None:
    whole: list[StepReport] = []
    parts: list[StepReport] = []
    train(run_of("whole"), whole.append)
    train(run_of("parts"), parts.append, max_steps=3)
    train(run_of("parts"), parts.append)
    assert [report.terms for report in parts] == [report.terms for report in whole]
    plain: list[StepReport] = []
    train(run_of("plain", augmentation=AugmentationOptions()), plain.append, max_steps=1)
    assert plain[0].terms != whole[0].terms
