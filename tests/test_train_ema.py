"""The average of the weights: what it is, that training is the same beside it, and that it is the run's result."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from train_world import CPU, SCENES, fill_cache, quietly, run_builder, tiny_config, tiny_detector, tiny_tables

from cache.reading import Cache, open_cache
from cache.writing import SceneSlot, open_for_writing
from scenes.scene_tables import SceneTables
from schemas.errors import CheckpointError
from train.clips import ClipOptions
from train.distiller_catalogue import DistillationOptions
from train.ema import averaged, warmed_up
from train.loop import train
from train.metrics_log import StepReport
from train.options import OptimizerOptions, TrainOptions
from train.run import TrainingRun

OPTIONS = TrainOptions(
    steps=5,
    batch_size=2,
    ema_decay=0.5,
    clips=ClipOptions(length=2),
    optimizer=OptimizerOptions(lr=1e-2, warmup_steps=0),
    log_every=1,
    checkpoint_every=100,
)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> SceneTables:
    return tiny_tables(tmp_path_factory.getbasetemp() / "train-world")


@pytest.fixture
def run_of(tables: SceneTables, tmp_path: Path) -> Callable[..., TrainingRun]:
    """A run in ``tmp_path / out`` of a fresh detector; keyword arguments are option fields or fields of the run."""
    return run_builder(TrainingRun(tiny_detector(), tables, SCENES, None, OPTIONS, tmp_path, CPU))


def weights(run: TrainingRun) -> dict[str, torch.Tensor]:
    return load_file(run.out / "weights.safetensors")


def test_the_decay_warms_up_to_what_was_asked_for() -> None:
    decays = [warmed_up(0.99, steps) for steps in range(2000)]
    assert decays[:2] == [0.1, 2 / 11]
    assert decays == sorted(decays)
    assert decays[-1] == decays[900] == 0.99


def test_the_average_is_the_published_sum_and_buffers_are_copied() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = averaged(module, 0.9)
    expected: list[torch.Tensor] = []
    for step in range(6):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter))
        module(torch.randn(4, 3))
        average.update_parameters(module)
        decay = warmed_up(0.9, step)
        new = [parameter.detach().clone() for parameter in module.parameters()]
        pairs = zip(expected or new, new, strict=True)
        expected = [decay * old + (1 - decay) * now for old, now in pairs]
    for got, wanted in zip(average.module.parameters(), expected, strict=True):
        torch.testing.assert_close(got, wanted)
        assert not got.requires_grad
    for got, wanted in zip(average.module.buffers(), module.buffers(), strict=True):
        assert torch.equal(got, wanted)


def test_training_is_the_same_beside_an_average(run_of) -> None:
    plain, beside = run_of("plain", ema_decay=None), run_of("beside")
    assert [(r.terms, r.grad_norm) for r in quietly(plain)] == [(r.terms, r.grad_norm) for r in quietly(beside)]
    learnt = [torch.load(run.out / "last.pt", weights_only=True)["learner"] for run in (plain, beside)]
    assert all(torch.equal(values, learnt[1][name]) for name, values in learnt[0].items())


def test_the_result_is_the_average_of_the_weights_after_every_step(run_of) -> None:
    passing: list[dict[str, torch.Tensor]] = []
    run = run_of()

    def note(_: StepReport) -> None:
        passing.append({name: values.clone() for name, values in run.detector.state_dict().items()})

    train(run, note)
    expected = passing[0]
    for step, now in enumerate(passing[1:], start=1):
        decay = warmed_up(0.5, step)
        expected = {name: decay * expected[name] + (1 - decay) * values for name, values in now.items()}
    result = weights(run)
    for name, values in result.items():
        torch.testing.assert_close(values, expected[name])
    assert any(not torch.equal(values, passing[-1][name]) for name, values in result.items())
    assert all(torch.equal(values, result[name]) for name, values in run.detector.state_dict().items())


def test_an_average_resumes_bit_for_bit_also_with_the_same_detector(run_of) -> None:
    whole = run_of("whole")
    quietly(whole)
    halves = run_of("halves")
    quietly(halves, 2)
    quietly(halves, 3)  # its detector now holds the average, the checkpoint the weights that go on
    quietly(run_of("halves", detector=tiny_detector(seed=7)))
    assert all(torch.equal(values, weights(halves)[name]) for name, values in weights(whole).items())


def test_the_average_begins_with_what_was_inherited(run_of, tables: SceneTables, tmp_path: Path) -> None:
    cache = _cache_with_parameters(tmp_path / "cache", tables)
    options = {
        "cache": cache,
        "distillation": DistillationOptions(names=("feature",), inherit=("object_queries",)),
        "optimizer": OptimizerOptions(lr=1e-30, warmup_steps=0, weight_decay=0),
    }
    run = run_of(**options)
    quietly(run, 2)
    (name,) = (name for name in weights(run) if name.endswith("query_embedding.weight"))
    torch.testing.assert_close(weights(run)[name], torch.from_numpy(cache.parameters()[name].copy()))


def _cache_with_parameters(path: Path, tables: SceneTables) -> Cache:
    slots = [SceneSlot(name, tables.frames(name)[0].scene_token, tables.scene_length(name)) for name in SCENES]
    writer = open_for_writing(path, fill_cache(path, tables).manifest, slots)
    teacher = tiny_detector(tiny_config(), seed=11)
    writer.write_parameters({name: values.numpy() for name, values in teacher.state_dict().items()})
    return open_cache(path)


def test_the_average_belongs_to_a_run_and_its_absence_to_runs_before_it(run_of) -> None:
    assert "ema_decay" not in TrainOptions(steps=1).what_changes_numbers()
    quietly(run_of(), 1)
    with pytest.raises(CheckpointError, match=r"options\.ema_decay: '\(absent\)' now, 0\.5 in the checkpoint"):
        quietly(run_of(ema_decay=None))


@pytest.mark.parametrize("decay", [0.0, 1.0, 1.5])
def test_a_decay_that_averages_nothing_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="ema_decay"):
        TrainOptions(steps=1, ema_decay=decay)
