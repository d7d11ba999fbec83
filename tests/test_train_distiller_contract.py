"""What every distiller must do: one suite over the whole catalogue, so a new one is tested by being listed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from distiller_cases import BOXES, LEARNING, NO_BOXES, SPECS, STUDENT, TEACHER, setting_of, targets_for
from torch import Tensor
from train_fakes import at_scene_start, manifest_of, random_student, stored_targets
from train_world import tiny_config

from schemas.bev_grid import BevGrid
from schemas.errors import CacheError, RecipeError
from schemas.features import Tier
from train.distiller_catalogue import DISTILLERS, DistillationOptions, DistillerSet, build_distillers
from train.distillers.base import CACHED_DIMS, DistillationSetting, GroundTruth, StudentOutputs
from train.targets import TeacherTargets

every_tier = pytest.mark.parametrize("tier", ["int8", "float16"])
learning = pytest.mark.parametrize("options", LEARNING.values(), ids=LEARNING.keys())


def losses(
    distillers: DistillerSet, student: StudentOutputs, teacher: TeacherTargets, truth: GroundTruth | None = None
) -> dict[str, Tensor]:
    """The losses; whatever they draw at random is drawn alike every time."""
    torch.manual_seed(7)
    return distillers.losses(student, teacher, truth or GroundTruth((BOXES,) * len(student.bev)))


def gradients(terms: dict[str, Tensor], student: StudentOutputs) -> list[Tensor]:
    """Gradients of the summed terms at the outputs of the student that they reach."""
    torch.stack(list(terms.values())).sum().backward()
    features = student.features
    leaves = (features.bev, features.queries.features, features.temporal.offsets, features.temporal.weights)
    return [leaf.grad for leaf in leaves if leaf.grad is not None]


@learning
@every_tier
def test_terms_are_named_finite_scalars_in_float32(options: DistillationOptions, tier: Tier) -> None:
    distillers = build_distillers(options, setting_of(tier=tier))
    terms = losses(distillers, random_student(STUDENT, 2), targets_for(distillers, tier=tier))
    assert terms
    assert all(key.startswith(f"{options.names[0]}/") for key in terms)
    assert all(term.shape == () and term.dtype == torch.float32 for term in terms.values())
    assert all(term.isfinite() and term > 0 for term in terms.values())


def test_none_reads_nothing_and_adds_nothing() -> None:
    distillers = build_distillers(DistillationOptions(), None)
    assert (distillers.requires, distillers.teacher_frames) == ((), 1)
    assert losses(distillers, random_student(STUDENT, 1), targets_for(distillers)) == {}


@learning
def test_it_requires_what_it_reads(options: DistillationOptions) -> None:
    distillers = build_distillers(options, setting_of())
    specs = {spec.name: spec for spec in SPECS}
    assert all(specs[name].dims == CACHED_DIMS[name] for name in distillers.requires)
    assert distillers.requires


@learning
def test_a_batch_without_any_object_is_finite_and_still_differentiable(options: DistillationOptions) -> None:
    distillers, student = build_distillers(options, setting_of()), random_student(STUDENT, 2)
    terms = losses(distillers, student, targets_for(distillers), GroundTruth((NO_BOXES, NO_BOXES)))
    found = gradients(terms, student)
    assert found
    assert all(gradient.isfinite().all() for gradient in found)


@learning
def test_the_first_frame_of_a_scene_is_enough(options: DistillationOptions) -> None:
    distillers, student = build_distillers(options, setting_of()), random_student(STUDENT, 1, history=False)
    terms = losses(distillers, student, at_scene_start(targets_for(distillers, batch=1)))
    found = gradients(terms, student)
    assert all(term.isfinite() for term in terms.values())
    assert any(gradient.abs().sum() > 0 for gradient in found)


@learning
def test_gradients_reach_the_student_and_all_own_modules_but_never_the_cache(options: DistillationOptions) -> None:
    distillers, student = build_distillers(options, setting_of(tier="float16")), random_student(STUDENT, 2)
    targets = targets_for(distillers, tier="float16")
    floats = {key: values for key, values in targets.stored.items() if values.is_floating_point()}
    cached = {key: values.requires_grad_() for key, values in floats.items()}
    terms = losses(distillers, student, replace(targets, stored=dict(targets.stored) | cached))
    found = gradients(terms, student)
    assert any(gradient.abs().sum() > 0 for gradient in found)
    for name, parameter in distillers.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert all(values.grad is None for values in cached.values())
    assert student.previous is not None
    assert not student.previous.bev.requires_grad


@learning
def test_cached_numbers_are_left_as_they_are(options: DistillationOptions) -> None:
    distillers = build_distillers(options, setting_of())
    targets = targets_for(distillers)
    before = {name: values.clone() for name, values in targets.stored.items()}
    losses(distillers, random_student(STUDENT, 2), targets)
    assert all(torch.equal(values, before[name]) for name, values in targets.stored.items())


@learning
def test_what_another_distiller_reads_beside_changes_nothing(options: DistillationOptions) -> None:
    distillers, student = build_distillers(options, setting_of()), random_student(STUDENT, 2)
    own = targets_for(distillers)
    more = stored_targets(SPECS, TEACHER.grid, batch=2, frames=distillers.teacher_frames + 2)
    stored = {
        name: torch.cat([values[:, :2], own.stored[name]], dim=1) if name in own.stored else values
        for name, values in more.stored.items()
    }
    terms, same = losses(distillers, student, own), losses(distillers, student, replace(more, stored=stored))
    assert {name: term.item() for name, term in terms.items()} == {name: term.item() for name, term in same.items()}


@learning
@pytest.mark.parametrize(("rows", "cols", "channels"), [(12, 10, 6), (12, 10, 4), (8, 7, 6), (24, 30, 8)], ids=str)
def test_any_two_grids_and_channel_counts_fit(
    options: DistillationOptions, rows: int, cols: int, channels: int
) -> None:
    student = tiny_config(rows, cols, channels)
    distillers = build_distillers(options, setting_of(student))
    terms = losses(distillers, random_student(student, 1), targets_for(distillers, batch=1))
    assert all(term.isfinite() for term in terms.values())


@learning
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_constant_features_are_finite_and_so_are_their_gradients(options: DistillationOptions, value: float) -> None:
    distillers, student = build_distillers(options, setting_of()), random_student(STUDENT, 2)
    with torch.no_grad():
        student.features.bev.fill_(value)
        student.features.queries.features.fill_(value)
        assert student.previous is not None
        student.previous.bev.fill_(value)
    targets = targets_for(distillers)
    for values in targets.stored.values():
        values.zero_()
    terms = losses(distillers, student, targets)
    found = gradients(terms, student)
    assert all(term.isfinite() for term in terms.values())
    assert all(gradient.isfinite().all() for gradient in found)
    assert all(parameter.grad.isfinite().all() for parameter in distillers.parameters() if parameter.grad is not None)


@learning
def test_losses_stay_in_float32_under_autocast(options: DistillationOptions) -> None:
    distillers, student = build_distillers(options, setting_of()), random_student(STUDENT, 1)
    targets = targets_for(distillers, batch=1)
    plain = losses(distillers, student, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = losses(distillers, student, targets)
    assert {key: term.item() for key, term in under_autocast.items()} == {
        key: term.item() for key, term in plain.items()
    }


@learning
def test_a_students_half_precision_is_raised_first(options: DistillationOptions) -> None:
    distillers, student = build_distillers(options, setting_of()), random_student(STUDENT, 1)
    bev = student.features.bev.detach().bfloat16().requires_grad_()
    half = replace(student, features=replace(student.features, bev=bev))
    terms = losses(distillers, half, targets_for(distillers, batch=1))
    assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())


@learning
def test_weights_scale_their_terms(options: DistillationOptions) -> None:
    field = options.names[0].replace("-", "_")
    section = getattr(options, field)
    weights = {name: 2 * value for name, value in section if name == "weight" or name.endswith("_weight")}
    doubled = options.model_copy(update={field: section.model_copy(update=weights)})
    once, twice = build_distillers(options, setting_of()), build_distillers(doubled, setting_of())
    twice.load_state_dict(once.state_dict())
    student, targets = random_student(STUDENT, 1), targets_for(once, batch=1)
    expected = losses(once, student, targets)
    for term, value in losses(twice, student, targets).items():
        assert value.item() == pytest.approx(2 * expected[term].item())


@learning
def test_maps_of_different_ground_are_refused(options: DistillationOptions) -> None:
    far = BevGrid(rows=6, cols=5, extent_m=(-61.2, -61.2, -5.0, 61.2, 61.2, 3.0))
    with pytest.raises(
        RecipeError, match=r"student's BEV covers \(-61.2.*teacher's \(-51.2.*--set student.detector.grid.extent_m"
    ):
        build_distillers(options, DistillationSetting(far, 4, setting_of().teacher))


@learning
def test_a_cache_without_a_feature_it_needs_is_refused(options: DistillationOptions) -> None:
    needed = build_distillers(options, setting_of()).requires
    for name in needed:
        left = tuple(spec for spec in SPECS if spec.name != name)
        held = ",".join(spec.name for spec in left)
        setting = replace(setting_of(), teacher=manifest_of(left, TEACHER.grid))
        with pytest.raises(CacheError, match=rf"no feature '{name}'.*holds {held}\..*--arrays {held},{name}"):
            build_distillers(options, setting)


@learning
def test_a_cache_of_other_dimensions_is_refused(options: DistillationOptions) -> None:
    for name in build_distillers(options, setting_of()).requires:
        specs = {spec.name: spec for spec in SPECS}
        dims, shape = ("camera", *specs[name].dims), (6, *specs[name].shape)
        specs[name] = specs[name].model_copy(update={"dims": dims, "shape": shape})
        setting = replace(setting_of(), teacher=manifest_of(tuple(specs.values()), TEACHER.grid))
        with pytest.raises(CacheError, match=rf"cached {name} has the dimensions camera, .*; distillers read it as "):
            build_distillers(options, setting)


@pytest.mark.parametrize(
    "name",
    ["fd3d-heatmap", "fd3d, no queries", "unidistill", "unidistill, always adapted", "unidistill, objects alone"],
)
def test_object_losses_are_zero_without_objects(name: str) -> None:
    distillers = build_distillers(LEARNING[name], setting_of())
    terms = losses(distillers, random_student(STUDENT, 1), targets_for(distillers, batch=1), GroundTruth((NO_BOXES,)))
    assert {term.item() for term in terms.values()} == {0}


def test_no_object_is_missed_by_a_coarse_teacher_map() -> None:
    distillers = build_distillers(DistillationOptions(names=("fd3d-heatmap",)), setting_of()).distillers
    mask = distillers["fd3d-heatmap"].mask(GroundTruth((BOXES, NO_BOXES)), TEACHER.grid)
    places = (BOXES.center_m[:, :2] + 51.2) / np.array(TEACHER.grid.cell_m)
    assert all(mask[0, 0, int(row), int(col)] == 1 for col, row in places)
    assert mask[1].sum() == 0


def test_all_distillers_compose() -> None:
    names = tuple(name for name in DISTILLERS if name != "none")
    together = build_distillers(DistillationOptions(names=names), setting_of())
    alone = [build_distillers(DistillationOptions(names=(name,)), setting_of()) for name in names]
    assert together.requires == tuple(sorted({name for one in alone for name in one.requires}))
    assert together.teacher_frames == max(one.teacher_frames for one in alone)
    terms = losses(together, random_student(STUDENT, 2), targets_for(together))
    assert {term.partition("/")[0] for term in terms} == set(names)


def test_none_beside_others_is_silent() -> None:
    distillers = build_distillers(DistillationOptions(names=("none", "feature")), setting_of())
    terms = losses(distillers, random_student(STUDENT, 1), targets_for(distillers, batch=1))
    assert set(terms) == {"feature/bev"}


@pytest.mark.parametrize("names", [(), ("magic",), ("none", "none")])
def test_names_that_are_no_distillers_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError, match=r"--distiller takes one or more of none, feature, fd3d-heatmap"):
        build_distillers(DistillationOptions(names=names), None)


def test_a_distiller_without_a_cache_is_refused() -> None:
    with pytest.raises(
        RecipeError, match=r"--distiller feature learns from a teacher cache.*--cache.*--distiller none"
    ):
        build_distillers(DistillationOptions(names=("feature",)), None)


@pytest.mark.parametrize(
    ("name", "dim", "size", "distiller", "told"),
    [
        ("query_logits", "class", 11, "fd3d", "11 along class, expected 10"),
        ("query_boxes", "code", 9, "unidistill", "9 along code, expected 10"),
        ("bev", "x", 9, "fd3d-heatmap", r"9 along x, expected 10 .*its grid is 12×10"),
        ("query_positions", "reference", 1, "fd3d", "1 along reference, expected where queries start"),
    ],
)
def test_a_cache_of_other_sizes_is_refused(name: str, dim: str, size: int, distiller: str, told: str) -> None:
    specs = {spec.name: spec for spec in SPECS}
    spec = specs[name]
    shape = tuple(size if of == dim else known for of, known in zip(spec.dims, spec.shape, strict=True))
    specs[name] = spec.model_copy(update={"shape": shape})
    setting = replace(setting_of(), teacher=manifest_of(tuple(specs.values()), TEACHER.grid))
    with pytest.raises(CacheError, match=rf"the cached {name} has {told}"):
        build_distillers(DistillationOptions(names=(distiller,)), setting)
