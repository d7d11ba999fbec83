"""Deformable sampling and the camera geometry, against loops that can be read."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from detectors.deformable_sampling import (
    init_sampling,
    project_map,
    project_to_map,
    sample_deformable,
    softmax_of_few,
    weighted_sum,
)
from detectors.reference_points import cell_centers, pillar_points_m, project_to_cameras
from detectors.spatial_cross_attention import CameraFeatures, CameraSampling, visible_cells
from schemas.bev_grid import BevGrid
from tests.golden_mini import CASES, cameras_of, mini_config, mini_head

GRID = BevGrid(rows=2, cols=3, extent_m=(-3, -2, -5, 3, 2, 3))


def bilinear(pixels: Tensor, x: float, y: float) -> Tensor:
    """Value of a (channel, rows, cols) map at pixel coordinates; pixel centres at +0.5, zero outside."""
    total = torch.zeros(len(pixels))
    for row in range(pixels.shape[1]):
        for col in range(pixels.shape[2]):
            nearness = max(0.0, 1 - abs(x - 0.5 - col)) * max(0.0, 1 - abs(y - 0.5 - row))
            total += nearness * pixels[:, row, col]
    return total


def slow_sample(maps: list[Tensor], locations: Tensor, weights: Tensor) -> Tensor:
    """``sample_deformable`` one sample at a time."""
    batch, queries, heads, levels, points = weights.shape
    out = torch.zeros(batch, queries, maps[0].shape[1])
    share = out.shape[-1] // heads
    for b, q, h, level, p in torch.cartesian_prod(*map(torch.arange, (batch, queries, heads, levels, points))).tolist():
        pixels = maps[level][b, h * share : (h + 1) * share]
        x, y = (locations[b, q, h, level, p] * torch.tensor(pixels.shape[:0:-1])).tolist()
        out[b, q, h * share : (h + 1) * share] += weights[b, q, h, level, p] * bilinear(pixels, x, y)
    return out


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), heads=st.integers(1, 3), points=st.integers(1, 3), queries=st.integers(1, 4))
def test_sampling_equals_the_loop(seed: int, heads: int, points: int, queries: int) -> None:
    random = torch.Generator().manual_seed(seed)
    maps = [torch.randn(2, 2 * heads, rows, cols, generator=random) for rows, cols in ((3, 5), (1, 2))]
    locations = torch.rand(2, queries, heads, 2, points, 2, generator=random) * 1.6 - 0.3
    weights = torch.randn(2, queries, heads, 2, points, generator=random)
    torch.testing.assert_close(
        sample_deformable(maps, locations, weights), slow_sample(maps, locations, weights), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("points", [1, 4])
def test_the_weighted_sum_has_the_gradients_of_what_it_stands_for(points: int) -> None:
    samples = torch.randn(3, 5, points, 7, dtype=torch.float64, requires_grad=True)
    factors = torch.randn(3, points, 7, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(weighted_sum(samples, factors), (samples * factors[:, None]).sum(2))
    assert torch.autograd.gradcheck(weighted_sum, (samples, factors))


def test_softmax_of_few_is_the_softmax_of_the_last_dimension() -> None:
    logits = torch.randn(2, 9, 3, 2, 4) * 10
    torch.testing.assert_close(softmax_of_few(logits), logits.softmax(-1))


def test_a_sample_at_a_pixel_centre_is_that_pixel() -> None:
    values = torch.arange(12.0).reshape(1, 1, 3, 4)
    location = torch.tensor([(2 + 0.5) / 4, (1 + 0.5) / 3]).reshape(1, 1, 1, 1, 1, 2)
    assert sample_deformable([values], location, torch.ones(1, 1, 1, 1, 1)).item() == pytest.approx(values[0, 0, 1, 2])


def test_far_locations_give_zero_and_finite_gradients() -> None:
    values = torch.ones(1, 2, 3, 3, requires_grad=True)
    location = torch.tensor([[1e9, -1e9], [-3.0, 0.5]]).reshape(1, 1, 1, 1, 2, 2).requires_grad_()
    weights = torch.ones(1, 1, 1, 1, 2, requires_grad=True)
    out = sample_deformable([values], location, weights)
    out.sum().backward()
    assert not out.any()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in (values, location, weights))


def test_sampling_stays_in_float32_under_autocast() -> None:
    values, location = torch.randn(1, 2, 4, 4), torch.rand(1, 3, 1, 1, 2, 2)
    weights = torch.rand(1, 3, 1, 1, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = sample_deformable([values], location, weights)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, sample_deformable([values], location, weights), atol=0, rtol=0)


def test_projections_to_maps_equal_the_linear_layer() -> None:
    linear, tokens = nn.Linear(4, 6), torch.randn(2, 12, 4)
    expected = linear(tokens).transpose(1, 2).reshape(2, 6, 3, 4)
    torch.testing.assert_close(project_to_map(linear, tokens, (3, 4)), expected)
    torch.testing.assert_close(project_map(linear, tokens.transpose(1, 2).reshape(2, 4, 3, 4)), expected)


def test_sampling_offsets_start_in_eight_directions() -> None:
    offsets, weights = nn.Linear(3, 8 * 2 * 4 * 2), nn.Linear(3, 8 * 2 * 4)
    init_sampling(offsets, weights, heads=8, points=4)
    pattern = offsets(torch.randn(1, 3)).reshape(8, 2, 4, 2)
    for head in range(8):
        angle = head * math.pi / 4
        direction = torch.tensor([math.cos(angle), math.sin(angle)])
        expected = direction / direction.abs().max()
        for point in range(4):
            torch.testing.assert_close(pattern[head, :, point], ((point + 1) * expected).expand(2, 2))
    assert not weights(torch.randn(1, 3)).any()


@torch.no_grad()
def test_pillar_start_reads_each_height_by_a_head_of_its_own() -> None:
    published = mini_config()
    config = published.model_copy(update={"encoder": published.encoder.model_copy(update={"spatial_start": "pillar"})})
    sampling = CameraSampling(config)
    x = torch.randn(1, 120, 32)
    assert not sampling.sampling_offsets(x).any()
    weights = sampling.attention_weights(x).reshape(120, 8, 4 * 8).softmax(-1).reshape(120, 8, 4, 2, 4).sum((2, 3))
    own = torch.arange(8) % 4
    assert (weights[:, torch.arange(8), own] > 0.9).all()


def test_cells_are_row_major_with_rows_forward() -> None:
    centers = cell_centers(GRID, torch.device("cpu"))
    assert centers.shape == (6, 2)
    torch.testing.assert_close(centers[1 * 3 + 2], torch.tensor([2.5 / 3, 1.5 / 2]))


def test_pillar_heights_are_the_published_ones() -> None:
    points = pillar_points_m(GRID, 4, torch.device("cpu"))
    torch.testing.assert_close(points[5, :, 2], torch.tensor([-4.5, -13 / 6, 1 / 6, 2.5]))
    torch.testing.assert_close(points[5, 0, :2], torch.tensor([2.0, 1.0]))


def test_projection_equals_the_loop() -> None:
    points, matrices = torch.randn(5, 2, 3) * 10, torch.randn(2, 3, 4, 4) * 50
    locations, visible = project_to_cameras(points, matrices, (48, 64))
    assert visible.any()
    assert not visible.all()
    for b, c, q, h in torch.cartesian_prod(*map(torch.arange, (2, 3, 5, 2))).tolist():
        x, y, depth, _ = (matrices[b, c].double() @ torch.tensor([*points[q, h].tolist(), 1.0]).double()).tolist()
        u, v = x / depth / 64, y / depth / 48
        assert visible[b, c, q, h].item() == (depth > 0 and 0 < u < 1 and 0 < v < 1)
        if visible[b, c, q, h]:
            assert locations[b, c, q, h].tolist() == pytest.approx([u, v], abs=1e-4)


def test_projection_is_not_rounded_under_autocast() -> None:
    points, matrices = torch.randn(5, 2, 3) * 10, torch.randn(1, 2, 4, 4) * 50
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half, _ = project_to_cameras(points, matrices, (48, 64))
    assert torch.equal(half, project_to_cameras(points, matrices, (48, 64))[0])


@torch.no_grad()
def test_camera_sampling_equals_asking_every_cell_in_every_camera() -> None:
    config, cameras = mini_config(CASES[1]), cameras_of(CASES[1])
    sampling: CameraSampling = mini_head(config).transformer.encoder.layers[0].attentions[1].deformable_attention
    x = torch.randn(1, 120, 32)
    fast = sampling(x, cameras.maps, visible_cells(cameras, config.grid, 4))
    locations, visible = project_to_cameras(
        pillar_points_m(config.grid, 4, x.device), cameras.image_from_lidar, cameras.image_hw
    )
    offsets = sampling.sampling_offsets(x).reshape(1, 120, 8, 4, 2, 4, 2)  # head, level, point / height, height, xy
    weights = sampling.attention_weights(x).reshape(1, 120, 8, 32).softmax(-1).reshape(1, 120, 8, 4, 8)
    size = torch.tensor([[level.shape[-1], level.shape[-2]] for level in cameras.maps])[:, None, None]
    total, count = torch.zeros(1, 120, 32), torch.zeros(1, 120, 1)
    for camera in range(6):
        maps = [sampling.value_proj(m[:, camera].movedim(1, -1)).movedim(-1, 1) for m in cameras.maps]
        places = locations[:, camera, :, None, None, None] + offsets / size
        seen = visible[:, camera].any(-1, keepdim=True)
        total += seen * sample_deformable(maps, places.flatten(4, 5), weights)
        count += seen
    torch.testing.assert_close(fast, total / count.clamp(min=1), atol=1e-5, rtol=1e-5)


def test_a_camera_that_sees_nothing_is_no_trouble() -> None:
    config = mini_config()
    cameras = cameras_of(CASES[0])
    blind = CameraFeatures(cameras.maps, torch.zeros(1, 6, 4, 4), cameras.image_hw)
    visible = visible_cells(blind, config.grid, 4)
    assert visible.counts == [0] * 6
    sampling = CameraSampling(config)
    out = sampling(torch.randn(1, 120, 32, requires_grad=True), blind.maps, visible)
    assert not out.any()
