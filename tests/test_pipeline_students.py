"""The published students: chosen by name, trained as published, and each fit for every distiller with Base's cache."""

from pathlib import Path

import pytest
import torch
from train_fakes import bev_spec, boxes_of, manifest_of, random_student, stored_targets
from train_world import CPU, SCENES, tiny_tables

from detectors.catalogue import DETECTORS, bevformer_base, build
from detectors.config import BEVFormerConfig
from detectors.teacher_features import feature_specs
from pipeline.paths import cache_folder, student_folder
from pipeline.recipes import RECIPES, load_recipe
from pipeline.students import PUBLISHED_CLIPS, with_init, with_student
from pipeline.training import seeded_detector
from scenes.photometric import PhotometricOptions
from schemas.errors import RecipeError
from schemas.features import FeatureSpec
from train.distiller_catalogue import DISTILLERS, DistillationOptions, build_distillers
from train.distillers.base import DistillationSetting, GroundTruth
from train.inheritance import HEAD_PARTS, PARTS
from train.loop import train
from train.metrics_log import StepReport
from train.run import TrainingRun

STUDENTS = ("bevformer-tiny", "bevformer-small", "fd3d-tiny", "fd3d-small")
BASE = bevformer_base()
OBJECT_FEATURES = FeatureSpec(
    name="object_features",
    dims=("object", "crucial_point", "channel"),
    shape=(128, 9, BASE.embed_dims),
    encoding="affine",
    scale_dims=("channel",),
    description="BEV features at boxes.",
)
TEMPORAL_TARGET = bev_spec(*BASE.grid.shape, BASE.embed_dims).model_copy(update={"name": "temporal_target"})
MANIFEST = manifest_of((*feature_specs(BASE), TEMPORAL_TARGET, OBJECT_FEATURES), BASE.grid)


def setting_of(student: BEVFormerConfig) -> DistillationSetting:
    """What a student of Base brings to its distillers."""
    return DistillationSetting(
        student_grid=student.grid,
        student_channels=student.embed_dims,
        teacher=MANIFEST,
        student_queries=student.decoder.queries,
        student_temporal=(student.encoder.heads, student.encoder.temporal_points),
        student_heatmap=student.head.heatmap_queries,
    )


@pytest.mark.parametrize("distiller", [name for name in DISTILLERS if name != "none"])
@pytest.mark.parametrize("name", STUDENTS)
def test_every_distiller_teaches_every_student_of_base(name: str, distiller: str) -> None:
    distillers = build_distillers(DistillationOptions(names=(distiller,)), setting_of(DETECTORS[name]()))
    assert set(distillers.requires) <= set(load_recipe("bevformer-base").cache.features)


@pytest.mark.parametrize("name", STUDENTS)
def test_every_student_can_inherit_from_base(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = (build(config).state_dict() for config in (DETECTORS[name](), BASE))
    resized = ("bev_embedding", "row_embed", "col_embed")
    for part in HEAD_PARTS:
        mine = {entry: values.shape for entry, values in ours.items() if entry.startswith(PARTS[part])}
        assert part in ("object_queries",) or mine
        for entry, shape in mine.items():
            same = shape[1:] if any(table in entry for table in resized) else shape
            assert theirs[entry].shape[-len(same) :] == same, entry


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_is_chosen_by_name_with_its_clips_and_a_folder_of_its_own(name: str) -> None:
    recipe = load_recipe("bevformer-base", ["student.training.seed=3"], name)
    assert recipe.student.detector == DETECTORS[name]()
    assert recipe.student.name == name
    assert recipe.student.training.clips.length == PUBLISHED_CLIPS[name]
    assert recipe.student.training.clips.length == (4 if name.startswith("fd3d") else 3)
    assert recipe.student.training.seed == 3
    assert cache_folder(recipe) == cache_folder(load_recipe("bevformer-base"))
    assert student_folder(recipe) == Path(f"out/bevformer-base/student-{name}-fd3d-heatmap-seed3")


def test_what_is_set_stands_above_what_the_student_brings() -> None:
    recipe = load_recipe("bevformer-base", ["student.training.clips.length=2"], "fd3d-small")
    assert recipe.student.training.clips.length == 2
    by_set = load_recipe("bevformer-base", ["student.detector=fd3d-small"])
    assert by_set.student.detector == recipe.student.detector
    assert student_folder(by_set) == Path("out/bevformer-base/student-fd3d-heatmap-seed0")


def test_a_student_of_no_name_is_the_recipes_own_and_an_unknown_one_is_refused() -> None:
    demo = load_recipe("demo")
    assert with_student(demo, None) is demo
    assert with_init(demo, None, None) is demo
    with pytest.raises(RecipeError, match=r"--student resnet: expected a detector of the catalogue: bevformer-base, "):
        load_recipe("bevformer-base", None, "resnet")


def test_files_to_start_from_are_part_of_the_recipe() -> None:
    recipe = with_init(load_recipe("bevformer-base"), None, Path("a: b.pth"))
    assert recipe.student.training.init.backbone == "a: b.pth"
    with pytest.raises(RecipeError, match="would both fill the image backbone"):
        with_init(recipe, Path("whole.pth"), None)


def test_published_recipes_augment_as_published_and_the_demo_does_not() -> None:
    for name in RECIPES:
        student = load_recipe(name).student
        published = not name.startswith("demo")
        assert (student.training.augmentation.photometric == PhotometricOptions()) == published
        assert student.detector.grid_mask_probability == (0.7 if published else 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDENTS)
def test_all_distillers_at_full_size_give_every_student_finite_losses(name: str) -> None:
    names = tuple(distiller for distiller in DISTILLERS if distiller != "none")
    student = DETECTORS[name]()
    distillers = build_distillers(DistillationOptions(names=names), setting_of(student))
    specs = tuple(spec for spec in MANIFEST.features if spec.name in distillers.requires)
    targets = stored_targets(specs, BASE.grid, 1, distillers.teacher_frames)
    boxes = boxes_of([[10, 5, -1, 2, 4.6, 1.7, 0.3, 1, 0], [-30, -12, -1, 2.9, 12, 3.8, 1.2, 3, 3]])
    terms = distillers.losses(random_student(student, 1), targets, GroundTruth((boxes,)))
    assert {term.partition("/")[0] for term in terms} == set(names)
    assert [term for term, value in terms.items() if not value.isfinite()] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDENTS)
def test_every_student_takes_a_step(name: str, tmp_path: Path) -> None:
    recipe = load_recipe("bevformer-base", ["student.training.distillation.names=[none]"], name)
    tables = tiny_tables(tmp_path / "world")
    options = recipe.student.training
    run = TrainingRun(seeded_detector(recipe.student.detector, 0), tables, SCENES, None, options, tmp_path / "out", CPU)
    reports: list[StepReport] = []
    train(run, reports.append, max_steps=1)
    assert reports[0].loss > 0
    assert reports[0].grad_norm > 0
