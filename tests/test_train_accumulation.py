"""Steps of several batches: one big batch where losses are means, and all or nothing when something goes wrong."""

import math
import shutil
from collections.abc import Callable
from fractions import Fraction
from itertools import islice
from math import cos, pi
from pathlib import Path
from typing import Any

import pytest
import torch
from train_world import CPU, SCENES, fill_cache, logged, quietly, run_builder, tiny_config, tiny_detector, tiny_tables

from cache.reading import Cache
from scenes.scene_tables import SceneTables
from schemas.errors import CheckpointError, DataError, UserError
from train.clips import ClipOptions, ClipPosition
from train.distiller_catalogue import DistillationOptions
from train.learner import Learner
from train.loss_weighting import WeightingOptions
from train.optimizer import learning_rate
from train.options import OptimizerOptions, TrainOptions
from train.run import TrainingRun, clip_plan, planned_batches

OPTIONS = TrainOptions(
    steps=4,
    accumulate=3,
    clips=ClipOptions(length=2),
    distillation=DistillationOptions(names=("feature",), weighting=WeightingOptions(rule="matched", steps=100)),
    optimizer=OptimizerOptions(lr=1e-3, warmup_steps=2),
    log_every=1,
    checkpoint_every=100,
)
ALONE = DistillationOptions()
NO_CHANCE = tiny_config(dropout=0.0).model_copy(update={"grid_mask_probability": 0.0})
STREAM = ClipOptions(mode="stream")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> SceneTables:
    return tiny_tables(tmp_path_factory.getbasetemp() / "train-world")


@pytest.fixture(scope="module")
def cache(tables: SceneTables, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return fill_cache(tmp_path_factory.mktemp("accumulation") / "cache", tables)


@pytest.fixture
def run_of(tables: SceneTables, cache: Cache, tmp_path: Path) -> Callable[..., TrainingRun]:
    """A run in ``tmp_path / out`` of a fresh detector; keyword arguments are option fields or fields of the run."""
    return run_builder(TrainingRun(tiny_detector(), tables, SCENES, cache, OPTIONS, tmp_path, CPU))


def saved(run: TrainingRun) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(run.out / "last.pt", weights_only=True)
    return content


def leaves(value: Any, name: str = "") -> dict[str, Any]:
    """What is saved, by dotted name, in values that compare."""
    if isinstance(value, dict | list | tuple):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        return {leaf: found for key, part in parts for leaf, found in leaves(part, f"{name}.{key}").items()}
    return {name: value.tolist() if isinstance(value, torch.Tensor) else value}


def differences(one: TrainingRun, other: TrainingRun) -> list[str]:
    """Names of what two runs saved differently, but for the learning rate, which follows from the step."""
    left, right = leaves(saved(one)), leaves(saved(other))
    different = {name for name in left.keys() | right.keys() if left.get(name) != right.get(name)}
    return sorted(name for name in different if not name.endswith(".lr"))


def test_batches_of_one_add_up_to_one_batch_where_losses_are_means(run_of) -> None:
    """Mean losses alone: the detection loss of this detector is made the mean of its predictions."""
    gradients = {}
    for batch_size, accumulate in ((4, 1), (2, 2), (1, 4)):
        detector = tiny_detector(NO_CHANCE)
        detector.losses = lambda features, _: {"mean": features.bev[..., 0].square().mean()}  # type: ignore[method-assign]
        run = run_of(
            f"{accumulate}",
            batch_size=batch_size,
            accumulate=accumulate,
            distillation=ALONE,
            detector=detector,
            clips=ClipOptions(length=1),
        )
        (report,) = quietly(run, max_steps=1)
        assert report.samples == 4
        gradients[accumulate] = (
            report.loss,
            report.grad_norm,
            [p.grad for p in detector.parameters() if p.grad is not None],
        )
    one = gradients.pop(1)
    for several in gradients.values():
        assert several[:2] == pytest.approx(one[:2], rel=1e-4)
        for own, theirs in zip(several[2], one[2], strict=True):
            torch.testing.assert_close(own, theirs, rtol=1e-3, atol=1e-6)


def test_terms_are_means_over_the_batches_of_a_step(run_of) -> None:
    run = run_of(distillation=ALONE, detector=tiny_detector(NO_CHANCE))
    (together,) = quietly(run, max_steps=1)
    singles = run_of(
        "singles",
        accumulate=1,
        distillation=ALONE,
        detector=tiny_detector(NO_CHANCE),
        optimizer=OptimizerOptions(lr=1e-30, weight_decay=0),
    )
    apart = quietly(singles, max_steps=3)
    assert together.terms == pytest.approx(
        {name: sum(report.terms[name] for report in apart) / 3 for name in together.terms}, rel=1e-5
    )
    assert together.loss == pytest.approx(sum(together.terms.values()))


@pytest.mark.parametrize("clips", [ClipOptions(length=2), STREAM])
def test_stopping_and_resuming_is_bit_for_bit_one_run(run_of, clips: ClipOptions) -> None:
    """Twelve frames in an epoch and five batches in a step: steps span epochs."""
    whole = run_of("whole", clips=clips, history_from_step=2, accumulate=5)
    quietly(whole)
    for stop in (1, 3, 4):
        halves = run_of("halves", clips=clips, history_from_step=2, accumulate=5)
        quietly(halves, stop)
    assert logged(halves) == logged(whole)
    assert differences(halves, whole) == []


def test_memory_flows_from_batch_to_batch(run_of, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, Any]] = []

    class Observed(Learner):
        def forward(self, batch, left):
            terms, memory = super().forward(batch, left)
            seen.append((left, memory))
            return terms, memory

    monkeypatch.setattr("train.loop.Learner", Observed)
    quietly(run_of(clips=STREAM, distillation=ALONE), max_steps=2)
    assert len(seen) == 6
    assert all(left is memory for (left, _), (_, memory) in zip(seen[1:], seen, strict=False))


def test_single_frames_last_as_many_optimiser_steps_as_asked(run_of) -> None:
    run = run_of(history_from_step=2, clips=ClipOptions(length=4))
    planned = list(islice(planned_batches(clip_plan(run), run.options, 0, ClipPosition()), 12))
    assert all(len(clip.steps) == 1 for batch in planned[:6] for clip in batch.clips)
    assert any(len(clip.steps) > 1 for batch in planned[6:] for clip in batch.clips)
    resumed = planned_batches(clip_plan(run), run.options, 1, planned[2].after)
    assert list(islice(resumed, 9)) == planned[3:]


def test_the_published_schedule_moves_at_the_steps_that_begin_an_epoch() -> None:
    options = OptimizerOptions(lr=1.0, warmup_steps=0, floor=0.0, cosine="per-epoch")
    rates = [learning_rate(step, 10, Fraction(5, 2), options) for step in range(10)]
    expected = [cos(pi * reached / 10) / 2 + 0.5 for reached in (0, 0, 0, 2.5, 2.5, 5, 5, 5, 7.5, 7.5)]
    assert rates == pytest.approx(expected)


def break_at(run: TrainingRun, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make one detection loss of a batch NaN, counted from 1."""
    losses, calls = run.detector.losses, [0]

    def broken(*args: Any) -> dict[str, torch.Tensor]:
        terms = losses(*args)
        calls[0] += 1
        name = sorted(terms)[0]
        return terms | ({name: terms[name] * math.nan} if calls[0] == batch else {})

    monkeypatch.setattr(run.detector, "losses", broken)


def test_a_loss_that_is_not_finite_undoes_the_whole_step(run_of, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fifth batch is the second of the second step: what is saved is the state after the first step, exactly."""
    stopped, broken = run_of("stopped"), run_of("broken")
    quietly(stopped, max_steps=1)
    break_at(broken, 5, monkeypatch)
    with pytest.raises(
        UserError,
        match=r"training stopped at step 2: the loss is not finite: detection/\w+ is nan\. "
        r"Samples: scene-000\d sample \d\. .*The state after step 1 is in",
    ):
        quietly(broken)
    assert differences(broken, stopped) == []
    whole, again = run_of("whole"), run_of("broken")
    quietly(whole)
    quietly(again)
    assert logged(again) == logged(whole)


def test_gradients_that_are_not_finite_name_the_samples_of_the_whole_step(run_of) -> None:
    run = run_of(distillation=ALONE)
    next(run.detector.parameters()).register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(UserError, match=r"step 1: the gradients are not finite.*Samples: (\S+ sample \d(, )?){3}\. If"):
        quietly(run)
    assert not (run.out / "last.pt").exists()


def test_a_missing_image_in_the_middle_of_a_step_loses_nothing(run_of, tables: SceneTables, tmp_path: Path) -> None:
    world = tmp_path / "world"
    shutil.copytree(tables.data_root.parent, world)
    own = tiny_tables(world)
    run = run_of("out", tables=own, clips=ClipOptions(length=1))
    victim = _token_of_batch(run, 5)
    image = own.data_root / own.frame(victim).camera_paths[0]
    hidden = image.rename(image.with_suffix(".hidden"))
    with pytest.raises(DataError, match=r"training stopped at step 2: .*after step 1 is in"):
        quietly(run)
    hidden.rename(image)
    stopped = run_of("stopped", clips=ClipOptions(length=1))
    quietly(stopped, max_steps=1)
    assert differences(run, stopped) == []


def _token_of_batch(run: TrainingRun, number: int) -> str:
    planned = list(islice(planned_batches(clip_plan(run), run.options, 0, ClipPosition()), number))
    return planned[-1].clips[0].sample_tokens[-1]


def test_accumulation_belongs_to_a_run_and_its_absence_to_runs_before_it(run_of) -> None:
    assert "accumulate" not in TrainOptions(steps=1).what_changes_numbers()
    quietly(run_of(), max_steps=1)
    with pytest.raises(CheckpointError, match=r"options\.accumulate: 2 now, 3 in the checkpoint"):
        quietly(run_of(accumulate=2))
