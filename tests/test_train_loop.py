"""The loop learns, resumes bit by bit, and loses nothing when something goes wrong."""

import math
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from train_world import CPU, SCENES, fill_cache, logged, run_builder, tiny_config, tiny_detector, tiny_tables

from cache.reading import Cache
from detectors.bevformer import BEVFormer
from detectors.weights import load_weights
from scenes.scene_tables import SceneTables
from schemas.errors import CheckpointError
from train.clips import ClipOptions
from train.distiller_catalogue import DistillationOptions
from train.loop import TrainOutcome, train
from train.metrics_log import StepReport
from train.options import OptimizerOptions, TrainOptions
from train.run import TrainingRun
from train.stream import StreamOptions

OPTIONS = TrainOptions(
    steps=6,
    batch_size=2,
    clips=ClipOptions(length=3),
    distillation=DistillationOptions(names=("feature", "fd3d-heatmap")),
    optimizer=OptimizerOptions(lr=1e-3, warmup_steps=2),
    log_every=1,
    checkpoint_every=2,
)
ALONE = DistillationOptions()


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> SceneTables:
    return tiny_tables(tmp_path_factory.getbasetemp() / "train-world")


@pytest.fixture(scope="module")
def cache(tables: SceneTables, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return fill_cache(tmp_path_factory.mktemp("loop") / "cache", tables)


@pytest.fixture
def run_of(tables: SceneTables, cache: Cache, tmp_path: Path) -> Callable[..., TrainingRun]:
    """A run in ``tmp_path / out`` of a fresh detector; keyword arguments are option fields or fields of the run."""
    return run_builder(TrainingRun(tiny_detector(), tables, SCENES, cache, OPTIONS, tmp_path, CPU))


def quietly(run: TrainingRun, max_steps: int | None = None) -> tuple[TrainOutcome, list[StepReport]]:
    reports: list[StepReport] = []
    return train(run, reports.append, max_steps), reports


def parameters(detector: BEVFormer) -> dict[str, torch.Tensor]:
    return {name: values.clone() for name, values in detector.state_dict().items()}


def test_a_run_reports_logs_and_leaves_weights(run_of) -> None:
    run = run_of()
    outcome, reports = quietly(run)
    assert (outcome.step, outcome.finished, outcome.interrupted) == (6, True, False)
    assert [report.step for report in reports] == [1, 2, 3, 4, 5, 6]
    terms = set(reports[0].terms)
    assert {"feature/bev", "fd3d-heatmap/bev"} < terms
    assert all(name.split("/")[0] in {"detection", "feature", "fd3d-heatmap"} for name in terms)
    assert all(math.isclose(report.loss, sum(report.terms.values())) for report in reports)
    assert set(reports[0].seconds) == {"data", "forward", "backward"}
    assert [line["step"] for line in logged(run)] == [1, 2, 3, 4, 5, 6]
    assert list((run.out / "tensorboard").iterdir())
    other = tiny_detector(seed=1)
    load_weights(other, outcome.weights)
    for name, values in run.detector.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], values, rtol=0, atol=0)


def test_the_recipe_lies_beside_the_output(run_of) -> None:
    run = run_of(recipe_yaml="train: {}\n")
    quietly(run, max_steps=1)
    assert (run.out / "recipe.yaml").read_text() == "train: {}\n"
    with pytest.raises(CheckpointError):
        quietly(run_of(recipe_yaml="other", seed=9))
    assert (run.out / "recipe.yaml").read_text() == "train: {}\n"


def test_learning_lowers_the_loss_on_what_it_sees(run_of) -> None:
    run = run_of(
        steps=40,
        scene_names=SCENES[:1],
        distillation=DistillationOptions(names=("feature",)),
        optimizer=OptimizerOptions(lr=3e-3, warmup_steps=0),
        detector=tiny_detector(tiny_config(dropout=0.0)),
    )
    _, reports = quietly(run)
    first, last = (sum(report.loss for report in part) for part in (reports[:6], reports[-6:]))
    assert last < 0.8 * first
    feature = [report.terms["feature/bev"] for report in reports]
    assert sum(feature[-6:]) < 0.8 * sum(feature[:6])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_stopping_and_resuming_is_bit_for_bit_one_run(run_of, precision: str) -> None:
    whole = run_of("whole", precision=precision)
    quietly(whole)
    halves = run_of("halves", precision=precision)
    outcome, _ = quietly(halves, max_steps=3)
    assert (outcome.step, outcome.finished) == (3, False)
    second = run_of("halves", precision=precision, detector=tiny_detector(seed=5))
    _, reports = quietly(second)
    assert [report.step for report in reports] == [4, 5, 6]
    assert logged(second) == logged(whole)
    expected = parameters(whole.detector)
    assert all(torch.equal(values, expected[name]) for name, values in parameters(second.detector).items())


def test_threads_and_look_ahead_change_no_number(run_of) -> None:
    plain = run_of("plain")
    wide = run_of("wide", stream=StreamOptions(look_ahead=4, read_threads=4, decode_threads=3))
    quietly(plain)
    quietly(wide)
    assert logged(plain) == logged(wide)


def test_the_log_is_cut_back_to_the_checkpoint(run_of) -> None:
    whole, killed = run_of("whole"), run_of("killed")
    quietly(whole)
    quietly(killed, max_steps=2)
    saved = (killed.out / "last.pt").read_bytes()
    quietly(run_of("killed"), max_steps=5)
    (killed.out / "last.pt").write_bytes(saved)  # as if the power had failed after step 5
    with (killed.out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    again = run_of("killed")
    quietly(again)
    assert logged(again) == logged(whole)


def test_a_detector_trains_without_any_cache(run_of) -> None:
    run = run_of(cache=None, distillation=ALONE)
    _, reports = quietly(run)
    assert all(name.startswith("detection/") for name in reports[0].terms)


def test_the_cache_is_not_read_by_none(run_of, tables: SceneTables, tmp_path: Path) -> None:
    untrained = fill_cache(tmp_path / "untrained", tables, scenes=SCENES[:1], untrained=True)
    with_cache, without = (
        run_of("with", cache=untrained, distillation=ALONE),
        run_of("without", cache=None, distillation=ALONE),
    )
    quietly(with_cache, max_steps=2)
    quietly(without, max_steps=2)
    assert logged(with_cache) == logged(without)


def test_history_can_be_turned_on_later(run_of, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    run = run_of(history_from_step=2, scene_names=SCENES[:1], batch_size=4)
    encode = run.detector.encode
    monkeypatch.setattr(run.detector, "encode", lambda *args: (calls.append(1), encode(*args))[1])
    quietly(run, max_steps=2)
    assert not calls
    later = run_of(history_from_step=2, scene_names=SCENES[:1], batch_size=4)
    encode_later = later.detector.encode
    monkeypatch.setattr(later.detector, "encode", lambda *args: (calls.append(1), encode_later(*args))[1])
    quietly(later, max_steps=3)
    assert len(calls) == 2


def test_bfloat16_trains_every_weight_that_float32_trains(run_of) -> None:
    """History runs without gradient first; weights cast there must not be used again for the supervised frames."""
    trained = {}
    for precision in ("float32", "bfloat16"):
        run = run_of(precision, precision=precision, batch_size=4)
        before = parameters(run.detector)
        quietly(run, max_steps=1)
        decayed = {n for n, p in run.detector.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        assert all(not torch.equal(before[name], run.detector.state_dict()[name]) for name in decayed)
        trained[precision] = decayed
    assert trained["bfloat16"] == trained["float32"]
    assert any(name.startswith("img_backbone") for name in trained["bfloat16"])


def test_ctrl_c_saves_at_the_next_step_and_resuming_goes_on(run_of) -> None:
    whole, stopped = run_of("whole"), run_of("stopped", checkpoint_every=100)
    quietly(whole)

    def press_at_four(report: StepReport) -> None:
        if report.step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    outcome = train(stopped, press_at_four)
    assert (outcome.step, outcome.finished, outcome.interrupted) == (4, False, True)
    assert signal.getsignal(signal.SIGINT) is handler
    again = run_of("stopped", checkpoint_every=100)
    quietly(again)
    assert logged(again) == logged(whole)


def test_a_second_ctrl_c_interrupts_at_once(run_of) -> None:
    def press_twice(_: StepReport) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(run_of(), press_twice)


def test_a_finished_run_does_nothing_more(run_of) -> None:
    run = run_of()
    quietly(run)
    before = (run.out / "metrics.jsonl").read_text()
    outcome, reports = quietly(run_of())
    assert outcome.finished
    assert not reports
    assert (run.out / "metrics.jsonl").read_text() == before
