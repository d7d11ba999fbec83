"""What every distiller must do: one suite over the whole catalogue, so a new one is tested by being listed."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from train_fakes import bev_spec, boxes_of, grid_of, manifest_of, student_outputs

from schemas.bev_grid import BevGrid
from schemas.boxes import Boxes
from schemas.errors import CacheError, RecipeError
from schemas.features import Tier
from train.distiller_catalogue import DISTILLERS, DistillationOptions, DistillerSet, build_distillers
from train.distillers.base import DistillationSetting, GroundTruth
from train.targets import TeacherTargets

BOXES = boxes_of([[10, 5, -1, 2, 4.6, 1.7, 0.3, 1, 0], [-30, -12, -1, 2.9, 12, 3.8, 1.2, 3, 3]])
NO_BOXES = boxes_of([])
TEACHER_GRID = grid_of(12, 10)
TEACHER_CHANNELS = 6


def setting_of(rows: int = 6, cols: int = 5, channels: int = 4, tier: Tier = "int8") -> DistillationSetting:
    manifest = manifest_of((bev_spec(*TEACHER_GRID.shape, TEACHER_CHANNELS),), TEACHER_GRID, tier)
    return DistillationSetting(grid_of(rows, cols), channels, manifest)


def build(name: str, setting: DistillationSetting | None = None) -> DistillerSet:
    return build_distillers(DistillationOptions(names=(name,)), setting or setting_of())


def stored_targets(batch: int, frames: int, tier: Tier = "int8") -> TeacherTargets:
    """Targets as they come from the store, with random content."""
    spec = bev_spec(*TEACHER_GRID.shape, TEACHER_CHANNELS)
    stored = {}
    for array in spec.stored(tier):
        shape = (batch, frames, *array.shape)
        if array.dtype == "int8":
            stored[array.name] = torch.randint(-127, 128, shape, dtype=torch.int8)
        else:
            stored[array.name] = torch.rand(shape).to(getattr(torch, array.dtype))
    return TeacherTargets(
        stored=stored,
        valid=torch.ones(batch, frames, dtype=torch.bool),
        previous_from_current=torch.eye(4, dtype=torch.float64).expand(batch, frames, 4, 4),
        specs=(spec,),
        tier=tier,
        grid=TEACHER_GRID,
    )


def losses(distillers: DistillerSet, boxes: tuple[Boxes, ...], tier: Tier = "int8", bev: Tensor | None = None):
    bev = torch.randn(len(boxes), 6, 5, 4) if bev is None else bev
    targets = stored_targets(len(boxes), distillers.teacher_frames, tier)
    return distillers.losses(student_outputs(bev), targets, GroundTruth(boxes))


every_distiller = pytest.mark.parametrize("name", DISTILLERS)
learning_distiller = pytest.mark.parametrize("name", [name for name in DISTILLERS if name != "none"])


@every_distiller
@pytest.mark.parametrize("tier", ["int8", "float16"])
def test_terms_are_named_finite_scalars_in_float32(name: str, tier: Tier) -> None:
    terms = losses(build(name, setting_of(tier=tier)), (BOXES, BOXES), tier)
    assert all(key.startswith(f"{name}/") for key in terms)
    assert all(term.shape == () and term.dtype == torch.float32 and term.isfinite() for term in terms.values())
    assert bool(terms) == (name != "none")


@every_distiller
def test_a_batch_without_any_object_is_finite_and_still_differentiable(name: str) -> None:
    distillers, bev = build(name), torch.randn(2, 6, 5, 4, requires_grad=True)
    terms = losses(distillers, (NO_BOXES, NO_BOXES), bev=bev)
    if terms:
        torch.stack(list(terms.values())).sum().backward()
        assert bev.grad is not None
        assert bev.grad.isfinite().all()


def test_object_losses_are_zero_without_objects() -> None:
    (term,) = losses(build("fd3d-heatmap"), (NO_BOXES,)).values()
    assert term.item() == 0


def test_no_object_is_missed_by_a_coarse_teacher_map() -> None:
    distiller = build("fd3d-heatmap").distillers["fd3d-heatmap"]
    mask = distiller.mask(GroundTruth((BOXES, NO_BOXES)), TEACHER_GRID)
    places = (BOXES.center_m[:, :2] + 51.2) / np.array(TEACHER_GRID.cell_m)
    assert all(mask[0, 0, int(row), int(col)] == 1 for col, row in places)
    assert mask[1].sum() == 0


@learning_distiller
def test_one_frame_without_history_is_enough(name: str) -> None:
    assert all(term.isfinite() for term in losses(build(name), (BOXES,)).values())


@learning_distiller
def test_gradients_reach_the_student_and_all_own_modules_but_never_the_cache(name: str) -> None:
    distillers = build(name)
    bev = torch.randn(2, 6, 5, 4, requires_grad=True)
    targets = stored_targets(2, distillers.teacher_frames, "float16")
    cached = {key: values.requires_grad_() for key, values in targets.stored.items()}
    terms = distillers.losses(student_outputs(bev), replace(targets, stored=cached), GroundTruth((BOXES, BOXES)))
    torch.stack(list(terms.values())).sum().backward()
    assert bev.grad is not None
    assert bev.grad.abs().sum() > 0
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in distillers.parameters())
    assert all(values.grad is None for values in cached.values())


@learning_distiller
@pytest.mark.parametrize(
    ("grid", "channels"), [(grid_of(12, 10), 6), (grid_of(12, 10), 4), (grid_of(8, 7), 6), (grid_of(24, 30), 8)]
)
def test_any_two_grids_and_channel_counts_fit(name: str, grid: BevGrid, channels: int) -> None:
    distillers = build(name, setting_of(grid.rows, grid.cols, channels))
    terms = losses(distillers, (BOXES,), bev=torch.randn(1, grid.rows, grid.cols, channels))
    assert all(term.isfinite() for term in terms.values())


@learning_distiller
def test_maps_of_different_ground_are_refused(name: str) -> None:
    far = BevGrid(rows=6, cols=5, extent_m=(-61.2, -61.2, -5.0, 61.2, 61.2, 3.0))
    with pytest.raises(
        RecipeError, match=r"student's BEV covers \(-61.2.*teacher's \(-51.2.*--set student.detector.grid.extent_m"
    ):
        build(name, DistillationSetting(far, 4, setting_of().teacher))


@learning_distiller
def test_a_cache_without_the_feature_is_refused(name: str) -> None:
    other = bev_spec(4, 4, 2).model_copy(update={"name": "other"})
    setting = replace(setting_of(), teacher=manifest_of((other,), TEACHER_GRID))
    with pytest.raises(CacheError, match=r"no feature 'bev'.*holds other.*--arrays other,bev"):
        build(name, setting)


@learning_distiller
def test_losses_stay_in_float32_under_autocast(name: str) -> None:
    distillers, bev = build(name), torch.randn(1, 6, 5, 4)
    targets, truth = stored_targets(1, 1), GroundTruth((BOXES,))
    plain = distillers.losses(student_outputs(bev), targets, truth)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = distillers.losses(student_outputs(bev), targets, truth)
    assert {key: term.item() for key, term in under_autocast.items()} == {
        key: term.item() for key, term in plain.items()
    }


def test_distillers_compose() -> None:
    options = DistillationOptions(names=("feature", "fd3d-heatmap"))
    both = build_distillers(options, setting_of())
    assert both.requires == ("bev",)
    assert set(losses(both, (BOXES,))) == {"feature/bev", "fd3d-heatmap/bev"}


@learning_distiller
def test_a_weight_scales_its_terms(name: str) -> None:
    field = name.replace("-", "_")
    options = DistillationOptions(names=(name,))
    section = getattr(options, field)
    doubled = options.model_copy(update={field: section.model_copy(update={"weight": 2 * section.weight})})
    build_of: Callable[[DistillationOptions], DistillerSet] = lambda chosen: build_distillers(chosen, setting_of())  # noqa: E731
    once, twice = build_of(options), build_of(doubled)
    twice.load_state_dict(once.state_dict())
    bev, targets, truth = torch.randn(1, 6, 5, 4), stored_targets(1, 1), GroundTruth((BOXES,))
    for term, value in once.losses(student_outputs(bev), targets, truth).items():
        assert twice.losses(student_outputs(bev), targets, truth)[term].item() == pytest.approx(2 * value.item())


@pytest.mark.parametrize("names", [(), ("magic",), ("none", "none")])
def test_names_that_are_no_distillers_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError, match=r"--distiller takes one or more of none, feature, fd3d-heatmap"):
        build_distillers(DistillationOptions(names=names), None)


def test_a_distiller_without_a_cache_is_refused() -> None:
    with pytest.raises(
        RecipeError, match=r"--distiller feature learns from a teacher cache.*--cache.*--distiller none"
    ):
        build_distillers(DistillationOptions(names=("feature",)), None)
    assert build_distillers(DistillationOptions(), None).requires == ()
