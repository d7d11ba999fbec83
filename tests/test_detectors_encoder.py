"""The encoder against the official code, and samples of a batch against each other."""

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from detectors.ego_motion import BevHistory, rotate_bev
from detectors.spatial_cross_attention import CameraFeatures
from schemas.bev_grid import BevGrid
from tests.golden_errors import TENSOR_TOLERANCES, case_errors
from tests.golden_mini import CASES, cameras_of, can_bus_of, history_of, mini_config, mini_head
from tests.golden_recipe import golden_state_dict_shapes

REPOSITORY = Path(__file__).parent.parent
GRID = BevGrid(rows=7, cols=5, extent_m=(-5, -7, -1, 5, 7, 1))


@pytest.mark.parametrize("number", range(len(CASES)))
def test_golden_case(number: int) -> None:
    errors = case_errors(number)
    assert len(errors) >= 5
    beyond = {name: error for name, error in errors.items() if error > TENSOR_TOLERANCES[name]}
    assert not beyond


def test_state_dict_names_and_shapes_are_official() -> None:
    state = mini_head(mini_config()).state_dict()
    assert {f"pts_bbox_head.{name}": tuple(value.shape) for name, value in state.items()} == golden_state_dict_shapes(
        "mini"
    )


def test_the_shift_of_both_references_changes_the_result() -> None:
    case = CASES[1]
    legacy = replace(case, shift_both_references=True)
    with torch.no_grad():
        results = [
            mini_head(mini_config(variant)).encode(cameras_of(variant), can_bus_of(variant), history_of(variant))[0]
            for variant in (case, legacy)
        ]
    assert (results[0] - results[1]).abs().max() > 1e-2


def slow_rotation(bev: torch.Tensor, turned_deg: float, grid: BevGrid, center: tuple[float, float]) -> torch.Tensor:
    """``rotate_bev`` one cell at a time."""
    angle = torch.deg2rad(torch.tensor(turned_deg, dtype=torch.float64))
    turned = torch.zeros_like(bev)
    for row in range(grid.rows):
        for col in range(grid.cols):
            right, forward = col + 0.5 - center[0], row + 0.5 - center[1]
            from_col = round(float(center[0] + angle.cos() * right - angle.sin() * forward) - 0.5)
            from_row = round(float(center[1] + angle.sin() * right + angle.cos() * forward) - 0.5)
            if 0 <= from_row < grid.rows and 0 <= from_col < grid.cols:
                turned[row * grid.cols + col] = bev[from_row * grid.cols + from_col]
    return turned


@pytest.mark.parametrize(("turned_deg", "center"), [(0.0, None), (7.3, None), (-352.4, (2.5, 3.5)), (40.0, (9.0, 1.0))])
def test_rotation_equals_the_loop(turned_deg: float, center: tuple[float, float] | None) -> None:
    bev = torch.randn(1, 35, 2)
    turned = rotate_bev(bev, torch.tensor([turned_deg], dtype=torch.float64), GRID, center)
    assert torch.equal(turned[0], slow_rotation(bev[0], turned_deg, GRID, center or (2.5, 3.5)))


def test_a_left_turn_brings_what_was_left_to_the_front() -> None:
    square = BevGrid(rows=5, cols=5, extent_m=(-5, -5, -1, 5, 5, 1))
    bev = torch.zeros(1, 25, 1)
    bev[0, 2 * 5 + 0] = 1  # left of the car
    turned = rotate_bev(bev, torch.tensor([90.0], dtype=torch.float64), square, None)
    assert turned[0, :, 0].nonzero().flatten().tolist() == [4 * 5 + 2]  # in front of it


@torch.no_grad()
def test_a_batch_with_and_without_history_equals_its_samples_alone() -> None:
    config = mini_config(CASES[1])
    head = mini_head(config)
    single = [cameras_of(CASES[0]), cameras_of(CASES[1]), cameras_of(CASES[1])]
    can_bus = torch.cat([can_bus_of(CASES[number]) for number in (0, 1, 2)])
    history = BevHistory(
        bev=torch.randn(3, 120, 32),
        shift=torch.rand(3, 2) * 0.2,
        present=torch.tensor([False, True, True]),
        unturned=torch.randn(3, 120, 32),
        turned_deg=torch.tensor([0.0, 5.0, -20.0], dtype=torch.float64),
    )
    bev, temporal = head.encode(_stack(single), can_bus, history)
    for index, cameras in enumerate(single):
        own = None if index == 0 else _sample(history, index)
        alone, alone_temporal = head.encode(cameras, can_bus[index, None], own)
        torch.testing.assert_close(bev[index, None], alone, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(temporal.offsets[index, None], alone_temporal.offsets, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(temporal.weights[index, None], alone_temporal.weights, atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_encoder_parameter() -> None:
    head = mini_head(mini_config(CASES[1])).train()
    bev, _ = head.encode(cameras_of(CASES[1]), can_bus_of(CASES[1]), history_of(CASES[1]))
    bev.square().sum().backward()
    silent = [name for name, value in head.transformer.encoder.named_parameters() if not _has_gradient(value)]
    assert not silent
    assert _has_gradient(head.bev_embedding.weight)
    assert _has_gradient(head.transformer.cams_embeds)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(dtype: torch.dtype) -> None:
    head, case = mini_head(mini_config(CASES[1])), CASES[1]
    exact, _ = head.encode(cameras_of(case), can_bus_of(case), history_of(case))
    with torch.autocast("cpu", dtype=dtype):
        half, temporal = head.encode(cameras_of(case), can_bus_of(case), history_of(case))
        queries, _ = head.detect(half)
    assert temporal.offsets.dtype == temporal.weights.dtype == queries.boxes.dtype == torch.float32
    assert torch.equal(queries.positions[0], head.detect(exact)[0].positions[0])  # geometry is never rounded
    # Eight bits of mantissa through three layers of order-one activations.
    assert (half.float() - exact).abs().mean() < 0.02


def test_compiling_changes_nothing() -> None:
    # In a process of its own: torch.compile cannot trace through the shape checks that pytest puts into every function.
    script = [sys.executable, "-m", "tests.compiled_detector"]
    finished = subprocess.run(script, capture_output=True, text=True, cwd=REPOSITORY, timeout=200, check=False)
    assert finished.returncode == 0, finished.stderr
    report = [line.split("=") for line in finished.stdout.split()]
    assert max(float(value) for name, value in report if name == "encoder_difference") < 1e-5
    assert max(float(value) for name, value in report if name == "decoder_difference") < 1e-4
    # One before the visible cells are listed, one after; listing them depends on the data.
    assert max(int(value) for name, value in report if name == "encoder_graphs") == 2


def _stack(cameras: list[CameraFeatures]) -> CameraFeatures:
    levels = zip(*(sample.maps for sample in cameras), strict=True)
    return CameraFeatures(
        maps=tuple(torch.cat(level) for level in levels),
        image_from_lidar=torch.cat([sample.image_from_lidar for sample in cameras]),
        image_hw=cameras[0].image_hw,
    )


def _sample(history: BevHistory, index: int) -> BevHistory:
    return BevHistory(**{field.name: getattr(history, field.name)[index, None] for field in fields(history)})


def _has_gradient(parameter: torch.Tensor) -> bool:
    return parameter.grad is not None and bool(parameter.grad.any())
