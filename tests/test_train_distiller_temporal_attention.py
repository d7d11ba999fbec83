"""``temporal-attention``: the same metres, the same shares, and only where both have a past."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from train_fakes import grid_of, manifest_of, random_student, stored_targets
from train_world import tiny_config, tiny_detector

from detectors.inputs import CameraBatch
from detectors.outputs import TemporalAttention
from detectors.teacher_features import feature_specs
from schemas.errors import RecipeError
from schemas.features import FeatureSpec
from train.distillers.base import DistillationSetting, GroundTruth, StudentOutputs
from train.distillers.temporal_attention import (
    TemporalAttentionDistiller,
    TemporalAttentionOptions,
    offsets_in_cells,
)
from train.targets import TeacherTargets

CONFIG = tiny_config(rows=6, cols=5, dims=4)
HEADS, POINTS = CONFIG.encoder.heads, CONFIG.encoder.temporal_points
ONLY_OFFSETS = TemporalAttentionOptions(offset_weight=1, weight=0)


def specs_of(rows: int, cols: int) -> tuple[FeatureSpec, ...]:
    specs = feature_specs(tiny_config(rows=rows, cols=cols, dims=4))[1:3]
    return tuple(spec.model_copy(update={"encoding": "float32", "scale_dims": (), "scale_name": ""}) for spec in specs)


def build(
    options: TemporalAttentionOptions | None = None,
    rows: int = 6,
    cols: int = 5,
    student: tuple[int, int] | None = (HEADS, POINTS),
) -> TemporalAttentionDistiller:
    manifest = manifest_of(specs_of(rows, cols), grid_of(rows, cols))
    setting = DistillationSetting(CONFIG.grid, CONFIG.embed_dims, manifest, student_temporal=student)
    return TemporalAttentionDistiller(options or TemporalAttentionOptions(), setting)


def cached(offsets: Tensor, weights: Tensor) -> TeacherTargets:
    rows, cols = offsets.shape[1:3]
    targets = stored_targets(specs_of(rows, cols), grid_of(rows, cols), len(offsets), frames=1)
    stored = {"temporal_offsets": offsets[:, None], "temporal_weights": weights[:, None]}
    return replace(targets, stored=stored)


def pattern(batch: int = 2, rows: int = 6, cols: int = 5) -> tuple[Tensor, Tensor]:
    shape = (batch, rows, cols, HEADS, 2, POINTS)
    return torch.randn(*shape, 2), torch.randn(shape).softmax(-1)


def student_with(offsets: Tensor, weights: Tensor, *, history: bool = True) -> StudentOutputs:
    student = random_student(CONFIG, len(offsets), history=history)
    temporal = TemporalAttention(offsets.clone().requires_grad_(), weights.clone().requires_grad_())
    return replace(student, features=replace(student.features, temporal=temporal))


def losses(distiller: TemporalAttentionDistiller, student: StudentOutputs, teacher: TeacherTargets) -> dict[str, float]:
    return {name: term.item() for name, term in distiller.losses(student, teacher, GroundTruth(())).items()}


def test_looking_where_the_teacher_looks_costs_nothing() -> None:
    offsets, weights = pattern()
    found = losses(build(), student_with(offsets, weights), cached(offsets, weights))
    assert found == {"offsets": 0, "weights": pytest.approx(0, abs=1e-6)}


def test_weights_that_lost_their_sum_to_rounding_are_shares_again() -> None:
    offsets, weights = pattern()
    found = losses(build(), student_with(offsets, weights), cached(offsets, 0.98 * weights))
    assert found["weights"] == pytest.approx(0, abs=1e-6)


def test_the_terms_are_what_they_say() -> None:
    (ours, our_weights), (theirs, their_weights) = pattern(), pattern()
    found = losses(build(), student_with(ours, our_weights), cached(theirs, their_weights))
    distance = (their_weights * (ours - theirs).abs().sum(-1)).sum(-1).mean()
    divergence = (their_weights * (their_weights / our_weights).log()).sum(-1).mean()
    assert found["offsets"] == pytest.approx(0.1 * distance.item(), rel=1e-5)
    assert found["weights"] == pytest.approx(divergence.item(), rel=1e-4)


def test_a_point_the_teacher_ignores_may_lie_anywhere() -> None:
    offsets, weights = pattern()
    weights[..., 0] = 0
    elsewhere = offsets.clone()
    elsewhere[..., 0, :] += 5
    weights = weights / weights.sum(-1, keepdim=True)
    assert losses(build(), student_with(elsewhere, weights), cached(offsets, weights))["offsets"] == 0


@pytest.mark.parametrize(("rows", "cols"), [(12, 5), (6, 10), (12, 10), (3, 5)])
def test_offsets_keep_their_metres_on_another_grid(rows: int, cols: int) -> None:
    metres = torch.randn(1, 1, 1, HEADS, 2, POINTS, 2) * 10
    in_teacher, in_student = (
        (metres / torch.tensor(grid.cell_m)).float().expand(1, *grid.shape, -1, -1, -1, -1)
        for grid in (grid_of(rows, cols), CONFIG.grid)
    )
    brought = offsets_in_cells(in_teacher, grid_of(rows, cols), CONFIG.grid)
    torch.testing.assert_close(brought, in_student)
    _, weights = pattern(1, rows, cols)
    weights = weights[:, :1, :1].expand_as(weights)
    student = student_with(in_student, weights[:, :1, :1].expand(-1, 6, 5, -1, -1, -1))
    found = losses(build(rows=rows, cols=cols), student, cached(in_teacher, weights))
    assert found == {"offsets": pytest.approx(0, abs=1e-5), "weights": pytest.approx(0, abs=1e-6)}


def test_the_previous_map_counts_only_where_the_student_has_the_keyframe_before() -> None:
    offsets, weights = pattern()
    elsewhere, apart = offsets.clone(), torch.tensor([True, False])
    elsewhere[..., 0, :, :] += 1  # source 0 is the previous map
    teacher = cached(offsets, weights)
    with_history = losses(build(ONLY_OFFSETS), student_with(elsewhere, weights), teacher)["offsets"]
    assert with_history == pytest.approx(1.0, rel=1e-5)  # |dx| + |dy| = 2 at one source of two
    mixed = replace(student_with(elsewhere, weights), previous_is_adjacent=apart)
    assert losses(build(ONLY_OFFSETS), mixed, teacher)["offsets"] == pytest.approx(2 / 3, rel=1e-5)
    alone = student_with(elsewhere, weights, history=False)
    assert losses(build(ONLY_OFFSETS), alone, teacher)["offsets"] == 0
    now = offsets.clone()
    now[..., 1, :, :] += 1
    assert losses(build(ONLY_OFFSETS), student_with(now, weights, history=False), teacher)["offsets"] > 0.5


def test_a_weight_that_vanished_has_a_finite_loss() -> None:
    offsets, weights = pattern()
    ours = torch.zeros_like(weights)
    ours[..., 0] = 1
    student = student_with(offsets, ours)
    terms = build().losses(student, cached(offsets, weights), GroundTruth(()))
    terms["weights"].backward()
    assert terms["weights"].isfinite()
    assert student.features.temporal.weights.grad is not None
    assert student.features.temporal.weights.grad.isfinite().all()


def test_gradients_reach_the_layers_that_decide_where_a_detector_looks() -> None:
    detector = tiny_detector(CONFIG)
    batch = CameraBatch(
        images=torch.rand(1, 6, 3, 32, 32),
        image_from_lidar=torch.eye(4).repeat(1, 6, 1, 1),
        can_bus=torch.zeros(1, 18, dtype=torch.float64),
        scene_tokens=("scene",),
    )
    previous = detector.encode(batch, None)
    features, _ = detector.features(batch, previous)
    student = StudentOutputs(features, previous, torch.tensor([True]))
    offsets, weights = pattern(1)
    terms = build().losses(student, cached(offsets, weights), GroundTruth(()))
    torch.stack(list(terms.values())).sum().backward()
    attention = detector.pts_bbox_head.transformer.encoder.layers[-1].attentions[0]
    for layer in (attention.sampling_offsets, attention.attention_weights):
        assert layer.weight.grad is not None
        assert layer.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in attention.output_proj.parameters())


@pytest.mark.parametrize(
    ("student", "told"), [((4, 4), "has 4 heads of 4"), ((2, 8), "has 2 heads of 8"), (None, "has none")]
)
def test_other_heads_or_points_are_refused(student: tuple[int, int] | None, told: str) -> None:
    with pytest.raises(
        RecipeError, match=rf"2 heads of 4 points, the student's {told}.*heads=2.*temporal_points=4.*leave"
    ):
        build(student=student)
