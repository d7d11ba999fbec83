"""Targets that come from no cache: those of the teacher's stream are what the cache holds before rounding."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from stage_runs import cached_serially, choice_of
from tiny_world import write_tiny_world

from benchmarks.exactness_runs import frames_apart
from benchmarks.live_targets import LiveTargets, keep_live, live_features, open_live
from benchmarks.online_targets import OnlineTargets, OnlineTeacher
from benchmarks.window_form import as_floats
from cache.reading import Cache, open_cache
from detectors.bevformer import BEVFormer
from pipeline.recipes import with_cache
from pipeline.teacher_stage.job import StageSource, open_source
from pipeline.teacher_stage.quantise import quantise
from pipeline.teacher_stage.teacher import WeightsSource, load_detector
from pipeline.training import seeded_detector
from schemas.features import Tier
from train.clips import Clip, ClipOptions, ClipPlan
from train.distiller_catalogue import DistillationOptions
from train.loop import train
from train.options import TrainOptions
from train.run import TrainingRun
from train.stream import StreamOptions, TargetWindow, TeacherStream
from train.targets import TeacherTargets, dequantise

CPU = torch.device("cpu")
TIERS: tuple[Tier, ...] = ("int8", "float16")
FEATURES = ("bev", "temporal_offsets", "temporal_weights", "query_logits", "query_boxes")
WINDOW = TargetWindow(FEATURES, 3, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny world, its caches in every tier, and its live features."""
    folder = tmp_path_factory.mktemp("live")
    world = write_tiny_world(folder / "world")
    for tier in TIERS:
        choice = choice_of(world, folder / tier)
        cached_serially(
            type(choice)(with_cache(choice.recipe, (), tier, None), choice.weights, choice.data, folder / tier)
        )
    source = source_of(folder)
    for name in source.names:
        keep_live(folder / "live", name, live_features(source, name), FEATURES)
    return folder


def source_of(folder: Path) -> StageSource:
    return open_source(choice_of(folder / "world", folder / "int8"))


def batches_of(cache: Cache) -> list[tuple[Clip, ...]]:
    clips = ClipPlan(cache.frames, ClipOptions(length=1), seed=0).epoch(0)
    return [tuple(clips[start : start + 2]) for start in range(0, len(clips), 2)]


def online(folder: Path, cache: Cache, queue: int | None) -> OnlineTargets:
    recipe = choice_of(folder / "world", folder / "int8").recipe
    detector, _ = load_detector(recipe.teacher, WeightsSource(None, untrained=True))
    assert isinstance(detector, BEVFormer)
    teacher = OnlineTeacher(detector.eval(), recipe.teacher.precision, source_of(folder).tables, queue)
    return OnlineTargets(teacher, cache, WINDOW, StreamOptions(decode_threads=1), CPU)


def assert_same_frames(ours: TeacherTargets, theirs: TeacherTargets) -> None:
    assert torch.equal(ours.valid, theirs.valid)
    assert torch.equal(ours.previous_from_current, theirs.previous_from_current)


@pytest.mark.parametrize("tier", TIERS)
def test_live_targets_rounded_as_the_cache_rounds_are_the_caches_bit_for_bit(folder: Path, tier: Tier) -> None:
    cache = open_cache(folder / tier)
    with (
        TeacherStream(cache, WINDOW, StreamOptions(), CPU) as stream,
        LiveTargets(folder / "live", cache, WINDOW, CPU) as live,
    ):
        for clips in batches_of(cache):
            cached, exact = stream.collect(stream.start(clips)), live.collect(live.start(clips))
            assert_same_frames(exact, cached)
            for name in FEATURES:
                spec = cache.manifest.feature(name)
                for row, column in exact.valid.nonzero().tolist():
                    floats = exact.frame(name, column)[row]
                    rounded = dequantise(spec, tier, quantise([spec], {name: floats}, tier).arrays)
                    assert torch.equal(rounded, cached.frame(name, column)[row])
                    assert name != "bev" or not torch.equal(floats, rounded), "nothing was rounded"
                assert not exact.window(name)[~exact.valid].any()


def test_a_frame_of_other_live_features_is_named(folder: Path, tmp_path: Path) -> None:
    cache = open_cache(folder / "int8")
    assert frames_apart(folder / "live", cache, FEATURES) == []
    scene = cache.scene_names[1]
    shutil.copytree(folder / "live", tmp_path / "live")
    values = np.array(open_live(tmp_path / "live", scene, "bev"))
    values[2, 0, 0, 0] += 1
    np.save(tmp_path / "live" / scene / "bev.npy", values)
    assert frames_apart(tmp_path / "live", cache, FEATURES) == [f"{scene}, step 2"]


def test_a_teacher_online_that_sees_the_whole_past_gives_the_live_targets(folder: Path) -> None:
    cache = open_cache(folder / "int8")
    with online(folder, cache, None) as teacher, LiveTargets(folder / "live", cache, WINDOW, CPU) as live:
        for clips in batches_of(cache):
            ours, theirs = teacher.collect(teacher.start(clips)), live.collect(live.start(clips))
            assert_same_frames(ours, theirs)
            for name in ("bev", "temporal_weights"):
                torch.testing.assert_close(ours.window(name), theirs.window(name), rtol=1e-4, atol=1e-4)


def test_a_short_queue_forgets(folder: Path) -> None:
    cache = open_cache(folder / "int8")
    (late,) = (
        c
        for c in ClipPlan(cache.frames, ClipOptions(length=1), 0).epoch(0)
        if c.steps == (3,) and "0001" in c.scene_name
    )
    with online(folder, cache, 1) as short, online(folder, cache, None) as long:
        some, all_of_it = short.collect(short.start([late])), long.collect(long.start([late]))
    assert torch.equal(some.valid, all_of_it.valid), "the window is seen in any case"
    assert not torch.equal(some.current("bev"), all_of_it.current("bev"))


def test_a_run_takes_its_targets_from_a_source_and_is_another_run(folder: Path, tmp_path: Path) -> None:
    source, cache = source_of(folder), open_cache(folder / "int8")
    options = TrainOptions(steps=2, batch_size=2, distillation=DistillationOptions(names=("tempdistiller", "feature")))
    student = choice_of(folder / "world", folder / "int8").recipe.student.detector
    runs = {
        name: TrainingRun(
            detector=seeded_detector(student, 0),
            tables=source.tables,
            scene_names=source.names,
            cache=cache,
            options=options,
            out=tmp_path / name,
            device=CPU,
            allow_untrained_teacher=True,
            open_targets=opened,
        )
        for name, opened in {
            "cached": None,
            "live": lambda window: LiveTargets(folder / "live", cache, window, CPU),
        }.items()
    }
    losses: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    for name, run in runs.items():
        assert train(run, lambda report, name=name: losses[name].append(report.terms)).finished
    assert runs["cached"].identity() != runs["live"].identity()
    live, cached = losses["live"][0], losses["cached"][0]
    assert live.keys() == cached.keys()
    assert all(value == cached[name] for name, value in live.items() if name.startswith("detection/"))
    assert live["feature/bev"] != cached["feature/bev"]
    assert live["feature/bev"] == pytest.approx(cached["feature/bev"], rel=1e-2)


def test_a_feature_of_floats_keeps_its_shape(folder: Path) -> None:
    spec = open_cache(folder / "int8").manifest.feature("temporal_offsets")
    values = np.ones(spec.shape, dtype=np.float32)
    (array,) = as_floats(spec).stored("int8")
    assert (array.shape, array.dtype) == (values.shape, "float32")
