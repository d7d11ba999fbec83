"""``temporal_target``: the stage writes what the training step would compute, and what no training step has seen."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from deadly_teacher import GRID
from fake_teacher import query_spec
from program import Program
from stage_runs import Heard, cached_on_dask, cached_serially, choice_of, files_of, scenes_in
from torch import Tensor, nn
from train_fakes import random_student
from train_world import tiny_config

from cache.reading import Cache, open_cache
from pipeline.recipe import override
from pipeline.teacher_stage.job import StageChoice, open_job, open_source
from pipeline.teacher_stage.plan import make_plan
from pipeline.teacher_stage.serial import cache_serially
from pipeline.teacher_stage.teacher import Teacher, WeightsSource, open_teacher
from pipeline.teacher_stage.teacher import teacher_of as teacher_of_recipe
from pipeline.teacher_stage.temporal_target import temporal_target_spec
from schemas.errors import CacheError, RecipeError
from schemas.features import FeatureSpec
from schemas.temporal_fusion import TemporalFusion
from train.distillers.base import DistillationSetting, GroundTruth
from train.distillers.tempdistiller import BevTempDistiller, TempDistillerOptions
from train.ego_alignment import AlignedBev, align_bev
from train.targets import TeacherTargets
from train.temporal_fusion import fuse_bev

TEACHERS = Path(__file__).resolve().parent / "deadly_teacher.py"
SCENES = ("scene-0001", "scene-0002")
OURS = "--set=student.training.distillation.tempdistiller"
FRAMES = 4
CPU = torch.device("cpu")


def choice_with(data: Path, cache: Path, *sets: str, teacher: str = "exact") -> StageChoice:
    """Both scenes and a teacher of noise; ``sets`` are options of ``cache.temporal_target``, or others in full."""
    choice = choice_of(data, cache, file=f"{TEACHERS}:{teacher}")
    full = [each if each.startswith("cache.") else f"cache.temporal_target.{each}" for each in sets]
    return replace(choice, recipe=override(choice.recipe, ["cache.features=[bev,temporal_target]", *full]))


def cached(data: Path, path: Path, *sets: str, teacher: str = "exact") -> Cache:
    cached_serially(choice_with(data, path, *sets, teacher=teacher))
    return open_cache(path)


def tokens_of(cache: Cache, scene: str) -> list[str]:
    rows = cache.frames.to_pylist()
    return [row["sample_token"] for row in rows if row["scene_name"] == scene]


def read(cache: Cache, scene: str, step: int, name: str = "temporal_target") -> Tensor:
    return torch.from_numpy(np.array(cache.read(tokens_of(cache, scene)[step], name)))


def window_of(cache: Cache, scene: str, step: int, count: int) -> TeacherTargets:
    """What a training step is given: the maps of the last frames as cached, zeros before the scene's start."""
    rows = {row["step"]: row for row in cache.frames.to_pylist() if row["scene_name"] == scene}
    steps = range(step - count + 1, step + 1)
    spec = cache.manifest.feature("bev").model_copy(update={"encoding": "float32", "scale_dims": ()})
    maps = [read(cache, scene, each, "bev") if each >= 0 else torch.zeros(spec.shape) for each in steps]
    motions = [np.ravel(rows[each]["previous_from_current"] if each >= 0 else np.eye(4)) for each in steps]
    return TeacherTargets(
        stored={"bev": torch.stack(maps)[None]},
        valid=torch.tensor([[each >= 0 for each in steps]]),
        previous_from_current=torch.tensor(np.reshape(motions, (1, count, 4, 4))),
        specs=(spec,),
        tier="int8",
        grid=cache.manifest.grid,
    )


class Told(nn.Module):
    """In place of the generator: keeps the target that the training step hands over."""

    def forward(self, bev: Tensor, target: Tensor, shape: tuple[int, ...]) -> Tensor:  # noqa: ARG002
        self.target = target
        return bev.sum() * 0


def target_in_training(cache: Cache, scene: str, step: int, options: TempDistillerOptions) -> Tensor:
    """The target of a training step whose student has the cache's grid, (y, x, channel)."""
    config = tiny_config(rows=cache.manifest.grid.rows, cols=cache.manifest.grid.cols)
    distiller = BevTempDistiller(options, DistillationSetting(config.grid, config.embed_dims, cache.manifest))
    distiller.rebuild = told = Told()  # type: ignore[assignment]
    teacher = window_of(cache, scene, step, distiller.teacher_frames)
    distiller.losses(random_student(config, 1), teacher, GroundTruth(()))
    return told.target[0].permute(1, 2, 0)


@pytest.mark.parametrize(
    ("sets", "frames", "temperature"),
    [
        ((), 4, 1.0),
        (("past_frames=1", "temperature=4"), 2, 4.0),
        (("cache.bev_grid=8",), 4, 1.0),
    ],
    ids=["defaults", "neighbours", "coarser grid"],
)
def test_it_is_what_the_training_step_computes(
    tiny_world: Path, tmp_path: Path, sets: tuple[str, ...], frames: int, temperature: float
) -> None:
    cache = cached(tiny_world, tmp_path / "cache", *sets)
    options = TempDistillerOptions(frames=frames, temperature=temperature, relation_weight=0)
    for scene in SCENES:
        assert torch.equal(read(cache, scene, 0), read(cache, scene, 0, "bev"))
        for step in range(FRAMES):
            target = read(cache, scene, step)
            torch.testing.assert_close(target, target_in_training(cache, scene, step, options), rtol=0, atol=1e-6)
            assert step == 0 or not torch.allclose(target, read(cache, scene, step, "bev"), atol=0.1)


def test_but_for_rounding_where_the_store_rounds(tiny_world: Path, tmp_path: Path) -> None:
    cache = cached(tiny_world, tmp_path / "cache", "cache.tier=float16", teacher="noise")
    options = TempDistillerOptions(relation_weight=0)
    for step in range(FRAMES):
        ours, theirs = read(cache, SCENES[0], step), target_in_training(cache, SCENES[0], step, options)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.01)


def test_a_frame_alone_is_its_own_target_to_the_last_bit(tiny_world: Path, tmp_path: Path) -> None:
    cache = cached(tiny_world, tmp_path / "cache", "past_frames=0")
    for step in range(FRAMES):
        assert torch.equal(read(cache, SCENES[0], step), read(cache, SCENES[0], step, "bev"))


def by_poses(cache: Cache, scene: str, step: int, others: list[int]) -> Tensor:
    """The target from where the car stood, without the chain of steps that the stage multiplies up."""
    rows = [row for row in cache.frames.to_pylist() if row["scene_name"] == scene]
    poses = [np.reshape(row["global_from_lidar"], (4, 4)) for row in rows]
    maps = [read(cache, scene, each, "bev").permute(2, 0, 1)[None] for each in range(len(rows))]
    aligned: list[AlignedBev] = []
    for other in others:
        other_from_current = torch.from_numpy(np.linalg.inv(poses[other]) @ poses[step])[None]
        aligned.append(align_bev(maps[other], other_from_current, cache.manifest.grid))
    return fuse_bev(maps[step], aligned)[0].permute(1, 2, 0)


def test_frames_to_come_are_part_of_it_where_there_are_any(tiny_world: Path, tmp_path: Path) -> None:
    blind = cached(tiny_world, tmp_path / "blind", "past_frames=1")
    cache = cached(tiny_world, tmp_path / "cache", "past_frames=1", "future_frames=2")
    others = [[1, 2], [0, 2, 3], [1, 3], [2]]
    for scene in SCENES:
        for step in range(FRAMES):
            expected = by_poses(cache, scene, step, others[step])
            torch.testing.assert_close(read(cache, scene, step), expected, rtol=0, atol=1e-5)
            assert torch.equal(read(cache, scene, step, "bev"), read(blind, scene, step, "bev"))
            changed = not torch.allclose(read(cache, scene, step), read(blind, scene, step), atol=0.1)
            assert changed == (step < FRAMES - 1)
        assert torch.equal(read(cache, scene, FRAMES - 1), read(blind, scene, FRAMES - 1))


def test_more_frames_than_a_scene_has(tiny_world: Path, tmp_path: Path) -> None:
    cache = cached(tiny_world, tmp_path / "cache", "past_frames=9", "future_frames=9")
    others = [[1, 2, 3], [0, 2, 3], [1, 0, 3], [2, 1, 0]]
    for step in range(FRAMES):
        expected = by_poses(cache, SCENES[1], step, others[step])
        torch.testing.assert_close(read(cache, SCENES[1], step), expected, rtol=0, atol=1e-5)


class KilledError(Exception):
    """The process ends."""


class Dying(Heard):
    """Ends in the middle of the second scene."""

    def frame_done(self, scene_name: str) -> None:
        super().frame_done(scene_name)
        if self.frames[SCENES[1]] == 1:
            raise KilledError


def test_workers_and_interrupted_runs_write_the_same_bytes(tiny_world: Path, tmp_path: Path) -> None:
    sets = ("past_frames=1", "future_frames=1", "cache.bev_grid=8", "cache.tier=int8")
    whole, resumed, dask = (
        choice_with(tiny_world, tmp_path / name, *sets, teacher="noise") for name in ("whole", "resumed", "dask")
    )
    heard = cached_serially(whole)
    assert heard.frames == dict.fromkeys(SCENES, FRAMES)
    assert [feature.name for feature in heard.fidelity[0].features] == ["bev", "temporal_target"]
    source = open_source(resumed)
    with pytest.raises(KilledError):
        cache_serially(open_job(resumed, source), source.names, Dying())
    assert scenes_in(tmp_path / "resumed") == SCENES[:1]
    cached_serially_rest(resumed)
    assert cached_on_dask(dask, SCENES, workers=1).frames == dict.fromkeys(SCENES, FRAMES)
    expected = files_of(tmp_path / "whole")
    assert "temporal_target/c.1.0.0.0.0" in expected
    assert files_of(tmp_path / "resumed") == expected
    assert files_of(tmp_path / "dask") == expected


def cached_serially_rest(choice: StageChoice) -> None:
    source = open_source(choice)
    job = open_job(choice, source)
    waiting = [name for name in source.names if name not in job.writer.committed()]
    assert cache_serially(job, waiting, Heard()) == {}


def test_the_manifest_tells_and_another_fusion_is_refused(tiny_world: Path, tmp_path: Path) -> None:
    choice = choice_with(tiny_world, tmp_path / "cache", "past_frames=2", "temperature=0.5")
    source = open_source(choice)
    open_job(choice, source)
    manifest = open_cache(choice.cache_path).manifest
    assert manifest.feature("temporal_target").fusion == TemporalFusion(past_frames=2, temperature=0.5)
    described = manifest.feature("temporal_target").description
    assert "2 past and 0 future frames at temperature 0.5" in described
    bev, target = manifest.hashed_fields()["features"]
    assert target["fusion"] == {"past_frames": 2, "future_frames": 0, "temperature": 0.5}
    assert "fusion" not in bev  # caches of single frames keep the fingerprints they had
    other = choice_with(tiny_world, tmp_path / "cache", "past_frames=2", "temperature=0.5", "future_frames=1")
    with pytest.raises(CacheError, match=r"temporal_target.fusion.future_frames: 0 in the cache, 1 now"):
        open_job(other, open_source(other))


def test_the_plan_counts_it(tiny_world: Path, tmp_path: Path) -> None:
    choice = choice_with(tiny_world, tmp_path / "cache", teacher="noise")
    order = make_plan(open_source(choice).manifest, [FRAMES] * 2, choice.cache_path).order
    assert [spec.name for spec in order.specs] == ["bev", "temporal_target"]
    assert order.frame_bytes == 2 * order.with_features(["bev"]).frame_bytes


def test_a_teacher_without_a_map_is_refused_and_one_with_a_target_of_its_own_keeps_it(tiny_world: Path) -> None:
    with pytest.raises(RecipeError, match=r"temporal_target is fused from a teacher's bev.*offers queries.*--arrays"):
        temporal_target_spec((query_spec(),), TemporalFusion())
    recipe = choice_with(tiny_world, Path("unused")).recipe
    opened = open_teacher(teacher_of_recipe(recipe, WeightsSource(None)), CPU)
    assert names_of(opened) == ["bev", "temporal_target"]
    without = override(recipe, ["cache.features=[bev]"])
    assert names_of(open_teacher(teacher_of_recipe(without, WeightsSource(None)), CPU)) == ["bev"]
    its_own = override(recipe, [f"teacher.file={TEACHERS}:with_target"])
    opened = open_teacher(teacher_of_recipe(its_own, WeightsSource(None)), CPU)
    assert names_of(opened) == ["bev", "temporal_target"]
    assert opened.fused == ()


def names_of(teacher: Teacher) -> list[str]:
    specs: tuple[FeatureSpec, ...] = teacher.feature_specs()
    return [spec.name for spec in specs]


def test_the_programs_work_with_it(tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(tiny_world, tmp_path, monkeypatch)
    stage = ("--teacher", f"{TEACHERS}:noise", "--arrays", "bev,temporal_target", "--threads", "1")
    sets = ("--set=cache.temporal_target.past_frames=2", "--set=cache.temporal_target.future_frames=2")
    assert "temporal_target_scale" in program.succeeded("plan", *stage, "--time-frames", "1", sets=sets)
    program.succeeded("cache-teacher", *stage, sets=sets)
    cache = ("--cache", "out/demo/teacher-cache")
    assert "the very bytes that the cache holds" in program.succeeded("verify-cache", *cache, "--live", "3", sets=())
    sets = [f"--set=student.detector.grid.extent_m={[*GRID.extent_m]}", f"{OURS}.target=temporal_target"]
    told = program.refused("train-student", "--distiller", "tempdistiller", sets=[*sets, f"{OURS}.frames=3"])
    assert "fused from 2 past and 2 future frames" in told
    assert "--set student.training.distillation.tempdistiller.future_frames=2" in told
