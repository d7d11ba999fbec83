"""``fd3d``: where it looks, what it hides, and who learns from what."""

from dataclasses import replace
from math import exp, hypot

import numpy as np
import pytest
import torch
from torch import Tensor
from train_fakes import bev_spec, boxes_of, grid_of, manifest_of, random_student, stored_targets, student_outputs
from train_world import tiny_config

from detectors.box_code import encode_boxes
from detectors.teacher_features import feature_specs
from schemas.boxes import CLASS_NAMES, Boxes
from schemas.errors import RecipeError
from train.adapters import Restore
from train.distiller_catalogue import DistillationOptions, build_distillers
from train.distillers.base import DistillationSetting, GroundTruth
from train.distillers.fd3d import BranchFD3D, FD3DOptions, TeacherQueryFD3D
from train.instance_areas import best_queries, instance_area
from train.loss_weighting import WeightingOptions
from train.query_branch import QueryBranchOptions
from train.targets import TeacherTargets

CONFIG = tiny_config(rows=32, cols=32, dims=8)
SPECS = tuple(
    spec.model_copy(update={"encoding": "float32", "scale_dims": (), "scale_name": None})
    for spec in feature_specs(CONFIG)
)
SETTING = DistillationSetting(
    CONFIG.grid, 8, manifest_of(SPECS, CONFIG.grid).model_copy(update={"class_names": CLASS_NAMES})
)
CAR = boxes_of([[20.0, -10.0, -1, 2, 4.6, 1.7, 0.4, 1, 0]])
NOTHING = boxes_of([])
BRANCH = QueryBranchOptions(queries=6, layers=2, heads=2, ffn_channels=16, dropout=0)
LEARNED = FD3DOptions(query_source="learned", branch=BRANCH, mask_ratio=0)


def codes_of(boxes: Boxes) -> Tensor:
    return torch.from_numpy(encode_boxes(boxes))


def targets_of(boxes: Boxes = CAR, logit: float = 3.0) -> TeacherTargets:
    """A teacher whose first queries see these boxes, and whose others see nothing."""
    targets = stored_targets(SPECS, CONFIG.grid, batch=1, frames=1)
    stored = dict(targets.stored)
    stored["query_logits"] = torch.full_like(stored["query_logits"], -20)
    stored["query_logits"][:, :, : len(boxes), 0] = logit
    stored["query_boxes"][:, :, : len(boxes)] = codes_of(boxes)
    place = (torch.from_numpy(boxes.center_m[:, :2]).float() + 51.2) / 102.4
    stored["query_positions"][:, :, 1:, : len(boxes), :2] = place
    return replace(targets, stored=stored)


def test_an_area_is_a_gaussian_along_the_box() -> None:
    grid = grid_of(128, 128)
    box = boxes_of([[8.0, 4.0, 0, 4.0, 12.0, 2, 0.7, 0, 0]])
    area = instance_area(codes_of(box), torch.tensor([0.8]), grid, min_sigma_cells=0.5)
    heading = np.array([-np.sin(0.7), -np.cos(0.7)])  # of the convention in schemas/boxes.py
    for row, col in ((69, 73), (66, 78), (80, 60), (68, 73)):
        offset = np.array([(col + 0.5) * 0.8 - 51.2 - 8.0, (row + 0.5) * 0.8 - 51.2 - 4.0])
        along, across = offset @ heading, offset @ np.array([heading[1], -heading[0]])
        expected = 0.8 * exp(-0.5 * ((along / 3.0) ** 2 + (across / 1.0) ** 2))
        assert area[row, col].item() == pytest.approx(expected, rel=1e-4, abs=1e-9)
    assert area.max() <= 0.8


def test_the_surest_instance_wins_and_small_ones_cover_their_cell() -> None:
    grid = grid_of(32, 32)
    cone = boxes_of([[1.6, 1.6, 0, 0.3, 0.3, 1, 0, 0, 0]] * 2)
    area = instance_area(codes_of(cone), torch.tensor([0.3, 0.9]), grid, min_sigma_cells=1.0)
    assert area[16, 16].item() == pytest.approx(0.9)
    assert area[16, 17].item() == pytest.approx(0.9 * exp(-0.5), rel=1e-4)
    assert not instance_area(codes_of(NOTHING), torch.zeros(0), grid, 1.0).any()
    nowhere = codes_of(cone)
    nowhere[:, 6:8] = 0
    torch.testing.assert_close(instance_area(nowhere, torch.tensor([0.3, 0.9]), grid, 1.0), area)


def test_best_queries_are_those_above_the_score() -> None:
    logits = torch.tensor([[[-3.0, -9], [1, 0], [-9, 2], [-1, -1]]])
    index, scores = best_queries(logits, 3, min_score=0.5)
    assert index.tolist() == [[2, 1, 3]]
    torch.testing.assert_close(scores, torch.tensor([[torch.sigmoid(torch.tensor(2.0)), 0.7310586, 0.0]]))


def test_nothing_counts_beyond_the_instances() -> None:
    teacher = targets_of()
    distiller = TeacherQueryFD3D(FD3DOptions(mask_ratio=0), SETTING).eval()
    distiller.generator = torch.nn.Identity()
    target = teacher.current("bev")
    wrong = target.clone()
    wrong[:, :8, :8] += 5  # far from the car, at (20, -10) m
    away = distiller.losses(student_outputs(wrong), teacher, GroundTruth((NOTHING,)))
    assert (away["generation"].item(), away["refinement"].item()) == pytest.approx((0, 0), abs=1e-9)
    row, col = int((51.2 - 10) / 3.2), int((51.2 + 20) / 3.2)
    wrong = target.clone()
    wrong[:, row, col] += 5
    there = distiller.losses(student_outputs(wrong), teacher, GroundTruth((NOTHING,)))
    assert there["generation"].item() > 0.1
    assert there["refinement"].item() > 0.1


def test_refinement_reads_the_refined_points_weighted_by_score() -> None:
    teacher = targets_of(logit=1.0)
    distiller = TeacherQueryFD3D(FD3DOptions(ring_cells=0), SETTING)
    target = teacher.current("bev")
    cols = (torch.arange(32) + 0.5).expand(32, 32)
    moved = target + cols[None, :, :, None] / 32  # bilinear reading of a ramp is exact
    terms = distiller.losses(student_outputs(moved), teacher, GroundTruth((NOTHING,)))
    place = (20 + 51.2) / 102.4
    assert terms["refinement"].item() == pytest.approx(torch.tensor(1.0).sigmoid().item() * place**2, rel=1e-4)
    around = TeacherQueryFD3D(FD3DOptions(ring_cells=2), SETTING)
    ring = [0.0, *(2 / 32 * np.cos(2 * np.pi * np.arange(8) / 8))]
    expected = torch.tensor(1.0).sigmoid().item() * np.mean([(place + dx) ** 2 for dx in ring])
    terms = around.losses(student_outputs(moved), teacher, GroundTruth((NOTHING,)))
    assert terms["refinement"].item() == pytest.approx(expected, rel=1e-4)


def test_a_teacher_that_sees_nothing_teaches_nothing() -> None:
    distiller, student = TeacherQueryFD3D(FD3DOptions(), SETTING), random_student(CONFIG, 1)
    terms = distiller.losses(student, targets_of(NOTHING), GroundTruth((CAR,)))
    assert (terms["generation"].item(), terms["refinement"].item()) == (0, 0)
    torch.stack(list(terms.values())).sum().backward()
    assert student.features.bev.grad is not None


def test_only_cells_of_instances_are_hidden() -> None:
    teacher = targets_of()
    distiller = TeacherQueryFD3D(FD3DOptions(mask_ratio=0.999), SETTING)
    distiller.generator = torch.nn.Identity()
    area = distiller.areas(list(teacher.current("query_boxes")[:, :1]), [torch.ones(1)])
    ones = torch.ones(1, 8, 32, 32)
    torch.manual_seed(0)
    hidden_error = distiller.generation(ones, ones, area).item()
    inside = (area > 0.1).to(area)
    assert hidden_error == pytest.approx(((area * inside).sum() / area.sum()).item(), rel=0.05)
    seen = area * (1 - inside)
    assert distiller.generation(ones, ones, seen).item() == 0


def test_the_restored_map_is_the_teachers_size() -> None:
    coarse = tiny_config(rows=16, cols=16, dims=4)
    setting = DistillationSetting(coarse.grid, 4, SETTING.teacher)
    distiller = TeacherQueryFD3D(FD3DOptions(), setting)
    assert isinstance(distiller.restore, Restore)
    assert distiller.restore(torch.zeros(1, 4, 16, 16)).shape == (1, 8, 32, 32)
    assert distiller.losses(random_student(coarse, 1), targets_of(), GroundTruth((CAR,)))["refinement"].isfinite()


def learned(**options: object) -> BranchFD3D:
    torch.manual_seed(3)
    return BranchFD3D(LEARNED.model_copy(update=options), SETTING)


def test_refinement_does_not_teach_the_branch_nor_generation() -> None:
    distiller, student = learned(), random_student(CONFIG, 1)
    terms = distiller.losses(student, targets_of(), GroundTruth((CAR,)))
    (terms["refinement"] + terms["generation"]).backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in distiller.branch.parameters())
    assert student.features.bev.grad is not None
    assert student.features.bev.grad.abs().sum() > 0
    student.features.bev.grad = None
    distiller.restore.zero_grad()
    terms["branch"].backward()
    assert student.features.bev.grad is None
    assert all(parameter.grad is not None for parameter in distiller.branch.parameters())


def test_equal_maps_are_read_alike() -> None:
    distiller, teacher = learned(), targets_of()
    terms = distiller.losses(student_outputs(teacher.current("bev")), teacher, GroundTruth((CAR,)))
    assert terms["refinement"].item() == pytest.approx(0, abs=1e-10)


def test_the_branch_learns_to_find_objects_on_the_cached_map() -> None:
    distiller = learned()
    teacher = targets_of()
    student = student_outputs(torch.zeros(1, 32, 32, 8))
    optimizer = torch.optim.AdamW(distiller.branch.parameters(), lr=1e-2)
    losses = []
    for _ in range(150):
        loss = distiller.losses(student, teacher, GroundTruth((CAR,)))["branch"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    queries, _ = distiller.branch(teacher.current("bev").permute(0, 3, 1, 2), torch.zeros(1, 8, 32, 32))
    best = queries.logits[-1, 0].amax(-1).argmax()
    x, y = queries.boxes[-1, 0, best, :2].tolist()
    assert hypot(x - 20, y + 10) < 5
    assert distiller.branch.matched(queries, (CAR,))[0].sum() == 1


def test_areas_are_annotated_until_the_branch_knows() -> None:
    annotated = instance_area(codes_of(CAR), torch.ones(1), CONFIG.grid, 1.0)
    distiller = learned(ground_truth_steps=2, min_score=0.0)
    bev = torch.randn(1, 8, 32, 32)
    for _ in range(2):
        queries, _ = distiller.branch(bev, bev)
        torch.testing.assert_close(distiller._areas(queries, GroundTruth((CAR,)))[0, 0], annotated)
        distiller.losses(student_outputs(torch.zeros(1, 32, 32, 8)), targets_of(), GroundTruth((CAR,)))
    queries, _ = distiller.branch(bev, bev)
    assert not torch.allclose(distiller._areas(queries, GroundTruth((CAR,)))[0, 0], annotated)
    unsure = learned(ground_truth_steps=0, min_score=0.9)
    torch.testing.assert_close(unsure._areas(queries, GroundTruth((CAR,)))[0, 0], annotated)


def test_the_steps_are_part_of_the_state() -> None:
    distiller = learned()
    distiller.losses(student_outputs(torch.zeros(1, 32, 32, 8)), targets_of(), GroundTruth((CAR,)))
    resumed = learned()
    resumed.load_state_dict(distiller.state_dict())
    assert resumed.steps.item() == 1
    distiller.eval().losses(student_outputs(torch.zeros(1, 32, 32, 8)), targets_of(), GroundTruth((CAR,)))
    assert distiller.steps.item() == 1


def test_matched_weighting_leaves_the_branchs_own_loss_alone() -> None:
    options = DistillationOptions(
        names=("fd3d",), fd3d=LEARNED, weighting=WeightingOptions(rule="matched", share=0.5, steps=5)
    )
    distillers = build_distillers(options, SETTING)
    own = {
        "fd3d/branch": torch.tensor(70.0),
        "fd3d/generation": torch.tensor(2.0),
        "fd3d/refinement": torch.tensor(3.0),
    }
    weighted = distillers.weighting(own, detection=torch.tensor(10.0))
    assert weighted["fd3d/branch"].item() == 70
    assert weighted["fd3d/generation"].item() == pytest.approx(2)
    assert weighted["fd3d/refinement"].item() == pytest.approx(3)


def test_heads_that_do_not_divide_the_channels_are_refused() -> None:
    setting = DistillationSetting(CONFIG.grid, 8, manifest_of((bev_spec(32, 32, 10),), CONFIG.grid))
    with pytest.raises(RecipeError, match=r"10 channels over 4 heads.*--set student\.training\.distillation\.fd3d\.br"):
        BranchFD3D(FD3DOptions(query_source="learned", branch=QueryBranchOptions(heads=4)), setting)
