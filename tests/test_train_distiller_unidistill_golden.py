"""``unidistill`` reproduces the numbers of UniDistill's released functions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from golden_recipe import load_golden, tensor
from torch import Tensor
from train_fakes import bev_spec, exact_targets, manifest_of, student_outputs

from schemas.bev_grid import BevGrid
from schemas.boxes import Boxes
from train.crucial_points import CrucialPoints, crucial_points, nine_points_m
from train.distillers.base import DistillationSetting, GroundTruth
from train.distillers.unidistill import (
    UniDistiller,
    UniDistillOptions,
    feature_error,
    relation_error,
    response_error,
)
from train.heatmap import object_heatmap

GOLDEN = load_golden("unidistill_losses.npz")
GRID = BevGrid(rows=180, cols=180, extent_m=(-54.0, -54.0, -5.0, 54.0, 54.0, 3.0))
SCENARIOS = ("main", "full", "one_empty", "all_empty_row", "no_rows")
READINGS = {
    # name: x and y exchanged, whose boxes are real, whether places off the map count
    "legacy": (True, "legacy/index", True),
    "fixed_unswap": (False, "valid", True),
    "fixed_full": (False, "valid", False),
}
CLASSES = (1, 2, 2, 1, 2, 2)
BRANCHES = {"reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2, "iou": 1}
RELEASED_ORDER = [2, 3, 0, 1, 4, 7, 8, 5, 6]
"""Of our nine points: the release starts at another corner."""

scenarios = pytest.mark.parametrize("scenario", SCENARIOS)


def boxes_of(rows: np.ndarray) -> Boxes:
    """Boxes from the golden rows of ``x, y, z, l, w, h, heading, vx, vy``."""
    table = rows.astype(np.float64)
    return Boxes(
        center_m=table[:, :3],
        size_wlh_m=table[:, [4, 3, 5]],
        yaw_rad=-table[:, 6] - np.pi / 2,
        velocity_mps=table[:, 7:],
        has_velocity=np.ones(len(table), dtype=np.bool_),
        labels=np.zeros(len(table), dtype=np.int64),
    )


def annotations(scenario: str) -> list[Boxes]:
    """Every row, also those that only fill up."""
    return [boxes_of(rows) for rows in GOLDEN[f"{scenario}/gt_boxes"]]


def real_annotations(scenario: str) -> list[Boxes]:
    valid = GOLDEN[f"{scenario}/valid"]
    return [boxes.select(own) for boxes, own in zip(annotations(scenario), valid, strict=True)]


def maps(who: str, level: str) -> Tensor:
    return tensor(f"ud/loss/{who}/{level}", (2, {"low": 16, "high": 32}[level], 180, 180))


def points_of(scenario: str, reading: str) -> CrucialPoints:
    """All rows' points; those count that the golden numbers were made with."""
    swapped, real, everywhere = READINGS[reading]
    points = crucial_points(annotations(scenario), GRID, legacy_swap=swapped)
    if not len(GOLDEN[f"{scenario}/gt_boxes"][0]):
        return points
    rows = torch.from_numpy(GOLDEN[f"{scenario}/{real}"])[..., None].expand_as(points.counts)
    return replace(points, counts=rows if everywhere else rows & points.counts)


@scenarios
def test_the_nine_points(scenario: str) -> None:
    for boxes, expected in zip(annotations(scenario), GOLDEN[f"{scenario}/points_cells"], strict=True):
        cells = (nine_points_m(boxes)[:, RELEASED_ORDER] + 54) / 0.6
        np.testing.assert_allclose(cells, expected, atol=2e-5)


@scenarios
@pytest.mark.parametrize("reading", READINGS)
def test_feature_and_relation(scenario: str, reading: str) -> None:
    low, high = maps("student", "low").requires_grad_(), maps("student", "high").requires_grad_()
    points = points_of(scenario, reading)
    feature = feature_error(points.read(low), points.read(maps("teacher", "low")), points.counts)
    relation = relation_error(points.read(high), points.read(maps("teacher", "high")), points.counts)
    expected = GOLDEN[f"{scenario}/{reading}/losses"]
    assert [feature.item(), relation.item()] == pytest.approx(expected[:2].tolist(), rel=2e-5, abs=2e-6)

    (feature + relation).backward()
    assert low.grad is not None
    assert high.grad is not None
    found = [
        value.item()
        for level, grad in (("low", low.grad.double()), ("high", high.grad.double()))
        for value in ((grad * tensor(f"ud/loss/probe/{level}", tuple(grad.shape))).sum(), grad.abs().sum())
    ]
    assert found == pytest.approx(GOLDEN[f"{scenario}/{reading}/grad"][:4].tolist(), rel=2e-4, abs=2e-5)


@pytest.mark.parametrize(("swap", "reading"), [(True, "legacy"), (False, "fixed_full")])
def test_the_distiller_as_a_whole(swap: bool, reading: str) -> None:
    scenario = "full" if swap else "one_empty"  # without the box that the release imagines in an empty sample
    options = UniDistillOptions(path="lidar-to-camera", response_weight=0, legacy_swap=swap)
    truth, expected = GroundTruth(tuple(real_annotations(scenario))), GOLDEN[f"{scenario}/{reading}/losses"]
    for number, (level, term, weight) in enumerate((("low", "feature", 100), ("high", "relation", 40))):
        student, teacher = (maps(who, level).permute(0, 2, 3, 1) for who in ("student", "teacher"))
        manifest = manifest_of((bev_spec(180, 180, student.shape[-1]),), GRID)
        distiller = UniDistiller(options, DistillationSetting(GRID, student.shape[-1], manifest))
        terms = distiller.losses(student_outputs(student), exact_targets(teacher, GRID), truth)
        assert terms[term].item() == pytest.approx(weight * expected[number].item(), rel=2e-5)


def test_places_are_read_where_they_are() -> None:
    columns = torch.arange(180.0).expand(120, 180)
    rows = torch.arange(120.0)[:, None].expand(120, 180)
    cells = torch.from_numpy(GOLDEN["coordmap/points"])
    places = 2 * cells / torch.tensor([180.0, 120.0]) - 1
    counts = torch.ones(places.shape[:-1], dtype=torch.bool)
    for name, where in (("unswap", places), ("legacy", places.flip(-1))):
        read = CrucialPoints(where, counts).read(torch.stack([columns, rows])[None])
        np.testing.assert_allclose(read, GOLDEN[f"coordmap/{name}"], atol=2e-4)


def mask_of(scenario: str, which: str) -> np.ndarray:
    mask = np.zeros((2, 180, 180), dtype=np.float32)
    mask[tuple(GOLDEN[f"{scenario}/{which}/mask_idx"].T.astype(np.int64))] = GOLDEN[f"{scenario}/{which}/mask_val"]
    return mask


@scenarios
def test_mask_of_the_response(scenario: str) -> None:
    """The release also marks the car's own cell wherever rows are filled up."""
    drawn = np.stack([object_heatmap(boxes, GRID, 0.7, 0) for boxes in real_annotations(scenario)])
    np.testing.assert_allclose(drawn, mask_of(scenario, "fixed"), atol=1e-6)
    polluted = drawn.copy()
    polluted[~GOLDEN[f"{scenario}/valid"].all(axis=1), 90, 90] = 1
    np.testing.assert_allclose(polluted, mask_of(scenario, "legacy"), atol=1e-6)


def chances(who: str, temperature: float, smallest: float = 1e-4) -> Tensor:
    """The largest chance of any class, as the release makes it of all tasks' logits."""
    logits = torch.cat(
        [tensor(f"ud/loss/{who}/task{task}/hm", (2, count, 180, 180)) - 2.19 for task, count in enumerate(CLASSES)], 1
    )
    return (logits / temperature).sigmoid().clamp(smallest, 1 - smallest).amax(dim=1, keepdim=True)


def box_maps(who: str) -> Tensor:
    return torch.cat(
        [
            tensor(f"ud/loss/{who}/task{task}/{branch}", (2, count, 180, 180))
            for task in range(len(CLASSES))
            for branch, count in BRANCHES.items()
        ],
        dim=1,
    )


@pytest.fixture(scope="module")
def responses() -> dict[str, Tensor]:
    return {
        "ours": chances("student", 1),
        "theirs": chances("teacher", 2),
        "theirs, 1e-3": chances("teacher", 2, smallest=1e-3),
        "our boxes": box_maps("student"),
        "their boxes": box_maps("teacher"),
    }


@scenarios
def test_response(scenario: str, responses: dict[str, Tensor]) -> None:
    for which, expected in (
        ("legacy", GOLDEN[f"{scenario}/legacy/losses"][2:]),
        ("fixed", GOLDEN[f"{scenario}/fixed/resp"]),
    ):
        mask = torch.from_numpy(mask_of(scenario, which))
        by_class = response_error(responses["ours"], responses["theirs"], mask).item()
        by_box = response_error(responses["our boxes"], responses["their boxes"], mask).item()
        assert [by_class, by_box] == pytest.approx(expected.tolist(), rel=1e-5, abs=1e-7)
    by_class = response_error(
        responses["ours"], responses["theirs, 1e-3"], torch.from_numpy(mask_of(scenario, "legacy"))
    ).item()
    assert by_class == pytest.approx(GOLDEN[f"{scenario}/legacy/resp_clamp1e-3"][0].item(), rel=1e-5, abs=1e-7)
