"""A run starts from files of weights: once, before inheriting, told, and known by their content afterwards."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from train_world import CPU, FRAMES, SCENES, fill_cache, tiny_config, tiny_detector, tiny_tables

from cache.reading import open_cache
from cache.writing import SceneSlot, open_for_writing
from detectors.weights import save_weights
from scenes.scene_tables import SceneTables
from schemas.errors import CheckpointError
from train.clips import ClipOptions
from train.distiller_catalogue import DistillationOptions
from train.inheritance import OBJECT_QUERIES
from train.initialisation import InitOptions, identity_of, initialise
from train.loop import train
from train.options import TrainOptions
from train.run import TrainingRun

NECK = "img_neck.lateral_convs.0.conv.weight"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> SceneTables:
    return tiny_tables(tmp_path_factory.getbasetemp() / "train-world")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A whole detector's, of another seed than the runs'."""
    save_weights(tiny_detector(seed=9), tmp_path / "start.safetensors")
    return tmp_path / "start.safetensors"


@pytest.fixture
def run_of(tables: SceneTables, tmp_path: Path) -> Callable[..., TrainingRun]:
    def build(init: InitOptions, said: list[str] | None = None) -> TrainingRun:
        options = TrainOptions(steps=2, batch_size=2, clips=ClipOptions(length=1), init=init)
        announce = None if said is None else said.append
        return TrainingRun(tiny_detector(), tables, SCENES, None, options, tmp_path / "out", CPU, announce=announce)

    return build


def test_a_run_starts_from_a_whole_detector_and_tells_so(run_of, weights: Path) -> None:
    said: list[str] = []
    run = run_of(InitOptions(weights=str(weights)), said)
    train(run, lambda _: None, max_steps=0)
    expected = tiny_detector(seed=9).state_dict()
    assert all(torch.equal(entry, expected[name]) for name, entry in run.detector.state_dict().items())
    told = json.loads((run.out / "initialised.json").read_text())
    (source,) = told["sources"]
    assert source["entries"] == len(expected)
    assert (source["file"], source["fills"], source["left_in_file"], told["new"]) == (str(weights), [], 0, {})
    (line,) = said
    assert f"Starting from {weights} (sha256 {source['sha256'][:16]}): {len(expected)} entries of the whole" in line
    assert "As in a new detector, from no file: nothing" in line


def test_it_is_not_repeated_when_a_run_goes_on(run_of, weights: Path) -> None:
    init = InitOptions(weights=str(weights))
    first = run_of(init)
    train(first, lambda _: None, max_steps=1)
    said: list[str] = []
    second = run_of(init, said)
    train(second, lambda _: None, max_steps=1)
    assert said == []
    assert torch.equal(second.detector.state_dict()[NECK], first.detector.state_dict()[NECK])
    assert not torch.equal(second.detector.state_dict()[NECK], tiny_detector(seed=9).state_dict()[NECK])


def test_another_file_is_another_run_and_the_same_file_elsewhere_is_not(run_of, weights: Path) -> None:
    train(run_of(InitOptions(weights=str(weights))), lambda _: None, max_steps=1)
    moved = weights.rename(weights.with_name("moved.safetensors"))
    train(run_of(InitOptions(weights=str(moved))), lambda _: None, max_steps=1)
    with pytest.raises(CheckpointError, match=r"start\.safetensors: the weights that this run starts from cannot be"):
        train(run_of(InitOptions(weights=str(weights))), lambda _: None)
    save_weights(tiny_detector(seed=10), moved)
    with pytest.raises(CheckpointError, match=r"init\.weights: '\w{64}' now, '\w{64}' in the checkpoint"):
        train(run_of(InitOptions(weights=str(moved))), lambda _: None)
    with pytest.raises(CheckpointError, match=r"init\.weights: '\(absent\)' now, '\w{64}' in the checkpoint"):
        train(run_of(InitOptions()), lambda _: None)


def test_a_file_that_vanishes_while_training_does_no_harm(run_of, weights: Path) -> None:
    run = run_of(InitOptions(weights=str(weights)))
    assert train(run, lambda _: weights.unlink(missing_ok=True)).finished


def test_parts_and_a_backbone_come_from_two_files(run_of, weights: Path, tmp_path: Path) -> None:
    save_weights(tiny_detector(seed=11).img_backbone, tmp_path / "backbone.safetensors")
    init = InitOptions(weights=str(weights), parts=("img_neck",), backbone=str(tmp_path / "backbone.safetensors"))
    run = run_of(init)
    report = initialise(run.detector, init)
    assert report is not None
    for name, entry in run.detector.state_dict().items():
        seed = {"img_neck": 9, "img_backbone": 11}.get(name.partition(".")[0], 0)
        assert torch.equal(entry, tiny_detector(seed=seed).state_dict()[name]), name
    head = sum(name.startswith("pts_bbox_head") for name in run.detector.state_dict())
    assert report.new == {"pts_bbox_head": head}
    assert [source.fills for source in report.sources] == [("img_neck",), ("img_backbone",)]
    assert f"As in a new detector, from no file: {head} of pts_bbox_head" in str(report)
    assert "more in the file are not used" in str(report)


def test_another_detectors_file_is_refused_with_the_way_to_take_a_part(run_of, weights: Path) -> None:
    save_weights(tiny_detector(tiny_config(rows=3)), weights)
    run = run_of(InitOptions(weights=str(weights)))
    with pytest.raises(
        CheckpointError, match=r"(?s)bev_embedding.weight \[15, 16\] instead of.*init\.parts=\[img_backbone"
    ):
        train(run, lambda _: None)
    assert not (run.out / "initialised.json").exists()


def test_it_comes_before_inheriting(run_of, tables: SceneTables, weights: Path, tmp_path: Path) -> None:
    manifest = fill_cache(tmp_path / "cache", tables).manifest
    slots = [SceneSlot(name, tables.frames(name)[0].scene_token, FRAMES) for name in SCENES]
    shapes = {name: entry.shape for name, entry in tiny_detector().state_dict().items()}
    parameters = {
        name: np.full(shape, 5, np.float32)
        for name, shape in shapes.items()
        if name.startswith((OBJECT_QUERIES, "pts_bbox_head.transformer.reference_points."))
    }
    open_for_writing(tmp_path / "cache", manifest, slots).write_parameters(parameters)
    distillation = DistillationOptions(names=("pkd",), inherit=("object_queries",))
    options = TrainOptions(steps=1, init=InitOptions(weights=str(weights)), distillation=distillation)
    run = TrainingRun(tiny_detector(), tables, SCENES, open_cache(tmp_path / "cache"), options, tmp_path / "out", CPU)
    train(run, lambda _: None, max_steps=0)
    state = run.detector.state_dict()
    assert state[OBJECT_QUERIES].unique().tolist() == [5]
    assert torch.equal(state[NECK], tiny_detector(seed=9).state_dict()[NECK])


def test_runs_without_files_are_what_they_were() -> None:
    assert identity_of(InitOptions()) == {}
    assert initialise(tiny_detector(), InitOptions()) is None
    assert "init" not in TrainOptions(steps=1).what_changes_numbers()


def test_shipped_weights_are_found_wherever_the_program_is() -> None:
    with pytest.raises(
        CheckpointError, match=r"shipped_weights/no-such\.safetensors: the weights that this run starts"
    ):
        identity_of(InitOptions(weights="shipped:no-such"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"parts": ("img_neck",)}, "parts are of a file of weights, and none is named"),
        ({"weights": "a", "backbone": "b"}, "would both fill the image backbone"),
        ({"weights": "a", "backbone": "b", "parts": ("img_backbone.layer1",)}, "would both fill the image backbone"),
    ],
)
def test_options_that_contradict_each_other_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        InitOptions.model_validate(values)
