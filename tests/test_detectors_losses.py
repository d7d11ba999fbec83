"""Losses and matching against the official numbers, and what happens to bad input."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from detectors.box_code import encode_boxes
from detectors.config import LossConfig
from detectors.detection_loss import detection_losses
from detectors.matching import match_cost
from detectors.outputs import QueryOutputs
from detectors.targets import BoxTargets, in_range, targets_of
from schemas.boxes import Boxes, empty_boxes
from schemas.errors import DataError, UserError
from tests.golden_errors import annotations, assignments, golden_targets, loss_errors
from tests.golden_mini import GOLDEN_MINI, golden_queries, mini_config

CONFIG = LossConfig()
CODE_WEIGHTS = torch.tensor(CONFIG.code_weights)
CPU = torch.device("cpu")


def losses_of(queries: QueryOutputs, targets: list[BoxTargets]) -> dict[str, Tensor]:
    return detection_losses(queries, targets, CODE_WEIGHTS, CONFIG)


def test_losses_are_the_official_ones() -> None:
    errors = loss_errors()
    assert set(errors) == {"loss_cls", "loss_bbox", "d0.loss_cls", "d0.loss_bbox"}
    assert max(errors.values()) < 1e-5


def test_assignments_are_the_official_ones() -> None:
    np.testing.assert_array_equal(assignments(), GOLDEN_MINI["assigned_gt_inds"])


def test_losses_equal_a_loop_over_queries() -> None:
    queries, target = golden_queries(1), golden_targets()
    losses = losses_of(queries, [target])
    for layer, name in ((0, "d0."), (1, "")):
        logits, boxes = queries.logits[layer, 0].double(), queries.boxes[layer, 0].double()
        cost = match_cost(queries.logits[layer, None, 0], queries.boxes[layer, None, 0], target, CONFIG)[0].numpy()
        given = dict(zip(*linear_sum_assignment(cost), strict=True))
        focal, distance = 0.0, 0.0
        for query in range(50):
            for label in range(10):
                p = logits[query, label].sigmoid()
                if query in given and target.labels[given[query]] == label:
                    focal += float(-0.25 * (1 - p) ** 2 * p.log())
                else:
                    focal += float(-0.75 * p**2 * (1 - p).log())
            if query in given:
                distance += float(((boxes[query] - target.codes[given[query]]).abs() * CODE_WEIGHTS).sum())
        assert float(losses[f"{name}loss_cls"]) == pytest.approx(2 * focal / 7, rel=1e-5)
        assert float(losses[f"{name}loss_bbox"]) == pytest.approx(0.25 * distance / 7, rel=1e-5)


def test_a_frame_without_objects_teaches_background() -> None:
    queries = _with_gradients(golden_queries(1))
    losses = losses_of(queries, targets_of([empty_boxes()], mini_config().grid, CPU))
    assert losses["loss_cls"] > 0
    assert losses["loss_bbox"] == 0
    torch.stack(list(losses.values())).sum().backward()
    assert queries.logits.grad is not None
    assert (queries.logits.grad > 0).all()


def test_a_batch_is_normalised_by_all_its_objects() -> None:
    queries, target = golden_queries(1), golden_targets()
    doubled = QueryOutputs(*(torch.cat([part, part], dim=1) for part in _parts(queries)))
    for name, loss in losses_of(doubled, [target, target]).items():
        torch.testing.assert_close(loss, losses_of(queries, [target])[name])


def test_objects_are_averaged_over_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, target = golden_queries(1), golden_targets()
    alone = losses_of(queries, [target])

    def other_rank_has_21(value: Tensor) -> None:
        if value > 0:  # objects; of predictions that are not finite it has none either
            value += 21

    replaced: dict[str, Callable[..., object]] = {
        "is_initialized": lambda: True,
        "get_world_size": lambda: 2,
        "all_reduce": other_rank_has_21,
    }
    for name, function in replaced.items():
        monkeypatch.setattr(dist, name, function)
    for name, loss in losses_of(queries, [target]).items():
        torch.testing.assert_close(loss, alone[name] * 7 / 14)


@pytest.mark.parametrize("part", ["logits", "boxes"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_predictions_that_are_not_finite_are_told(part: str, value: float) -> None:
    queries = golden_queries(1)
    getattr(queries, part)[1, 0, 3, 0] = value
    told = r"1 of the detector's 2000 predicted numbers are NaN or infinite.*lower learning rate"
    with pytest.raises(UserError, match=told):
        losses_of(queries, [golden_targets()])


def test_nan_is_told_even_without_objects() -> None:
    queries = golden_queries(1)
    queries.boxes[0, 0, 3, 0] = float("nan")
    with pytest.raises(UserError, match="training has diverged"):
        losses_of(queries, targets_of([empty_boxes()], mini_config().grid, CPU))


@pytest.mark.parametrize(
    ("field", "value"), [("size_wlh_m", 0.0), ("size_wlh_m", np.nan), ("yaw_rad", np.inf), ("velocity_mps", np.nan)]
)
def test_an_annotation_without_a_code_is_refused(field: str, value: float) -> None:
    boxes = annotations()
    numbers = getattr(boxes, field).copy()
    numbers[2] = value
    with pytest.raises(DataError, match=r"batch sample 0: annotation 2 is no box: .*sample_annotation\.json"):
        targets_of([replace(boxes, **{field: numbers})], mini_config().grid, CPU)


def test_range_filter_is_strict_in_x_and_y_and_blind_to_height() -> None:
    rows = np.array([[51.2, 0, 0], [51.19, 0, 50], [0, -40.96, 0], [0, -40.95, -50], [-51.2, 0, 0]])
    count = len(rows)
    boxes = Boxes(
        center_m=rows,
        size_wlh_m=np.ones((count, 3)),
        yaw_rad=np.zeros(count),
        velocity_mps=np.zeros((count, 2)),
        has_velocity=np.ones(count, dtype=np.bool_),
        labels=np.zeros(count, dtype=np.int64),
    )
    np.testing.assert_array_equal(in_range(boxes, mini_config().grid).center_m, rows[[1, 3]])


def test_more_objects_than_queries() -> None:
    boxes = annotations()
    many = boxes.select(np.tile(np.arange(7), 10))
    losses = losses_of(golden_queries(1), targets_of([many], mini_config().grid, CPU))
    assert all(loss.isfinite() for loss in losses.values())


def test_half_precision_outputs_have_full_precision_losses() -> None:
    queries = golden_queries(1)
    half = QueryOutputs(*(part.bfloat16() for part in _parts(queries)))
    losses = losses_of(half, [golden_targets()])
    assert all(loss.dtype == torch.float32 for loss in losses.values())


def test_targets_are_box_codes() -> None:
    target, boxes = golden_targets(), annotations()
    np.testing.assert_array_equal(target.codes.numpy(), encode_boxes(boxes))
    np.testing.assert_array_equal(target.labels.numpy(), boxes.labels)


def _parts(queries: QueryOutputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return queries.features, queries.positions, queries.logits, queries.boxes


def _with_gradients(queries: QueryOutputs) -> QueryOutputs:
    return QueryOutputs(*(part.clone().requires_grad_() for part in _parts(queries)))
