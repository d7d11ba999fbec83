"""What goes wrong in a run, and what it is refused for: told with step, term and samples, and nothing is lost."""

import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from train_world import CPU, SCENES, fill_cache, logged, quietly, run_builder, tiny_config, tiny_detector, tiny_tables

from cache.reading import Cache, open_cache
from scenes.scene_tables import SceneTables
from schemas.errors import CacheError, CheckpointError, DataError, RecipeError, UserError
from train.clips import ClipOptions
from train.distiller_catalogue import DistillationOptions
from train.loop import train
from train.metrics_log import StepReport
from train.options import OptimizerOptions, TrainOptions
from train.run import TrainingRun
from train.run_folder import open_run_folder

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


def break_at(run: TrainingRun, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make one detection loss NaN at a step."""
    losses, calls = run.detector.losses, [0]

    def broken(*args: Any) -> dict[str, torch.Tensor]:
        terms = losses(*args)
        calls[0] += 1
        name = sorted(terms)[0]
        return terms | ({name: terms[name] * math.nan} if calls[0] == step else {})

    monkeypatch.setattr(run.detector, "losses", broken)


def test_a_loss_that_is_not_finite_stops_with_step_term_and_samples(run_of, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(checkpoint_every=100)
    break_at(run, 4, monkeypatch)
    with pytest.raises(UserError) as caught:
        quietly(run)
    message = str(caught.value)
    assert "training stopped at step 4" in message
    assert "the loss is not finite: detection/" in message
    assert "is nan" in message
    assert "Samples: scene-000" in message
    assert "--set student.training.optimizer.lr" in message
    assert "The state after step 3 is in" in message
    whole = run_of("whole")
    quietly(whole)
    again = run_of(checkpoint_every=100)
    quietly(again)
    assert [line["step"] for line in logged(again)] == [1, 2, 3, 4, 5, 6]


def test_gradients_that_are_not_finite_stop_the_run(run_of) -> None:
    run = run_of(distillation=ALONE)
    parameter = next(run.detector.parameters())
    parameter.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(UserError, match=r"step 1: the gradients are not finite.*Samples: scene-000"):
        quietly(run)
    assert not (run.out / "last.pt").exists()


def test_predictions_that_are_not_finite_name_the_samples(run_of) -> None:
    run = run_of(distillation=ALONE)
    with torch.no_grad():
        next(run.detector.img_backbone.parameters()).fill_(math.nan)
    with pytest.raises(UserError, match=r"training stopped at step 1: .*NaN or infinite.*Samples: scene-000"):
        quietly(run)


def test_a_damaged_cache_stops_with_scene_array_and_remedy(run_of, cache: Cache, tmp_path: Path) -> None:
    shutil.copytree(cache.path, tmp_path / "damaged")
    for path in (tmp_path / "damaged" / "bev").glob("c.*"):
        data = bytearray(path.read_bytes())
        data[: len(data) // 2] = bytes(byte ^ 1 for byte in data[: len(data) // 2])
        path.write_bytes(data)
    with pytest.raises(
        CacheError, match=r"training stopped at step 1: the cache is damaged: scene .*, array bev, step .*repair-cache"
    ):
        quietly(run_of(cache=open_cache(tmp_path / "damaged")))


def test_a_missing_image_in_the_middle_of_a_run_loses_nothing(run_of, tables: SceneTables, tmp_path: Path) -> None:
    run = run_of(checkpoint_every=100)
    world = tmp_path / "world"
    shutil.copytree(tables.data_root.parent, world)
    own = tiny_tables(world)
    hidden: list[Path] = []

    def remove_the_rest(report: StepReport) -> None:
        if report.step == 2:
            images = list((own.data_root / "samples" / "CAM_BACK").iterdir())
            hidden.extend(path.rename(path.with_suffix(".hidden")) for path in images)

    broken = run_of(tables=own, checkpoint_every=100)
    with pytest.raises(
        DataError, match=r"training stopped at step \d: sample .*CAM_BACK.*is missing.*after step \d is in"
    ):
        train(broken, remove_the_rest)
    for path in hidden:
        path.rename(path.with_suffix(".jpg"))
    quietly(run_of(tables=own, checkpoint_every=100))
    whole = run_of("whole", checkpoint_every=100)
    quietly(whole)
    assert logged(run) == logged(whole)


def test_a_folder_in_use_is_refused(run_of) -> None:
    run = run_of()
    with (
        open_run_folder(run.out),
        pytest.raises(UserError, match=rf"another training run is writing to .*process {os.getpid()}.*OUT="),
    ):
        quietly(run)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, r"options\.seed: 1 now, 0 in the checkpoint"),
        ({"distillation": ALONE}, r"options\.distillation\.names: \['none'\] now, \['feature', 'fd3d-heatmap'\] in"),
        ({"scene_names": SCENES[:2]}, r"data\.scenes: '2 scenes.* now, '3 scenes"),
        ({"detector": tiny_detector(tiny_config(dims=8))}, r"detector\.embed_dims: 8 now, 16 in the checkpoint"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(run_of, change: dict[str, Any], words: str) -> None:
    quietly(run_of(), max_steps=2)
    with pytest.raises(CheckpointError, match=words) as caught:
        quietly(run_of(**change))
    assert "OUT=..." in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 torn"])
def test_a_damaged_checkpoint_is_refused(run_of, content: bytes) -> None:
    run = run_of()
    run.out.mkdir()
    (run.out / "last.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"last\.pt cannot be read as a training state"):
        quietly(run)


def test_a_foreign_checkpoint_is_refused(run_of) -> None:
    run = run_of()
    run.out.mkdir()
    torch.save({"state_dict": {}}, run.out / "last.pt")
    with pytest.raises(
        CheckpointError, match=r"expected format 'bev-teacher-cache training state 2', got 'none stated'"
    ):
        quietly(run)


def test_a_foreign_metrics_file_is_refused(run_of) -> None:
    quietly(run_of(), max_steps=2)
    run = run_of()
    (run.out / "metrics.jsonl").write_text("hello\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 1 is no metrics"):
        quietly(run)


def test_an_untrained_teacher_is_refused_unless_allowed(run_of, tables: SceneTables, tmp_path: Path) -> None:
    untrained = fill_cache(tmp_path / "untrained", tables, untrained=True)
    with pytest.raises(CacheError, match=r"untrained teacher.*--allow-untrained-teacher"):
        quietly(run_of(cache=untrained))
    quietly(run_of(cache=untrained, allow_untrained_teacher=True), max_steps=1)


def test_a_cache_that_does_not_fit_is_refused(run_of, tables: SceneTables, tmp_path: Path) -> None:
    partial = fill_cache(tmp_path / "partial", tables, scenes=SCENES[:2])
    with pytest.raises(CacheError, match=rf"1 of 3 scenes are not in the cache .*{SCENES[2]}.*--scenes"):
        quietly(run_of(cache=partial))
    quietly(run_of(cache=partial, scene_names=SCENES[:2]), max_steps=1)


def test_a_cache_of_other_tables_is_refused(run_of, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    other = open_cache(cache.path)
    dataset = other.manifest.dataset.model_copy(update={"tables_sha256": "f" * 64})
    other.manifest = other.manifest.model_copy(update={"dataset": dataset})
    with pytest.raises(CacheError, match=r"dataset tables"):
        quietly(run_of(cache=other))


def test_float16_needs_cuda(run_of) -> None:
    with pytest.raises(RecipeError, match=r"float16 needs --device cuda, got cpu.*student.training.precision=bfloat16"):
        quietly(run_of(precision="float16"))


def test_streams_have_no_epochs_to_hold_a_learning_rate_for(run_of) -> None:
    by_epochs = OptimizerOptions(lr=1e-3, cosine="per-epoch")
    with pytest.raises(RecipeError, match=r"cosine=per-epoch .*clips.mode=stream.*cosine=per-step"):
        quietly(run_of(optimizer=by_epochs, clips=ClipOptions(mode="stream")))
    quietly(run_of(optimizer=by_epochs), max_steps=1)
