"""Whether a cache holds what a teacher computes: what rounding explains, and what it does not."""

import numpy as np
import pytest
import torch
from fidelity_fakes import spec_of
from torch import Tensor

from pipeline.teacher_stage.quantise import quantise
from pipeline.teacher_stage.reproduction import TOLERANCES, Agreement, agreement, quantisation_level
from schemas.features import Encoding, FeatureSpec, Tier


def compared(spec: FeatureSpec, now: Tensor, then: Tensor, tier: Tier = "int8") -> Agreement:
    fresh, cached = (quantise([spec], {spec.name: values}, tier).arrays for values in (now, then))
    return agreement(spec, tier, cached, fresh, TOLERANCES["float32"].levels)


@pytest.mark.parametrize("tier", ["int8", "float16"])
@pytest.mark.parametrize("encoding", ["affine", "symmetric", "unit", "float16", "float32"])
def test_the_same_floats_agree_byte_by_byte(encoding: Encoding, tier: Tier) -> None:
    spec = spec_of(encoding, (6, 5, 3), ("channel",) if encoding in ("affine", "symmetric") else ())
    values = torch.rand(6, 5, 3)
    found = compared(spec, values, values, tier)
    numbers = sum(int(np.prod(array.shape)) for array in spec.stored(tier))
    assert found == Agreement(identical=numbers, numbers=numbers, largest_levels=0.0, apart=0, values=90)
    assert found.is_explained(spec, tier, TOLERANCES["float32"])


@pytest.mark.parametrize("tier", ["int8", "float16"])
@pytest.mark.parametrize("encoding", ["affine", "symmetric", "unit", "float16", "float32"])
def test_rounding_noise_is_explained_and_other_values_are_not(encoding: Encoding, tier: Tier) -> None:
    spec = spec_of(encoding, (16, 15, 4), ("channel",) if encoding in ("affine", "symmetric") else ())
    values = torch.rand(16, 15, 4)
    noisy = (values * (1 + 3e-7 * torch.randn(values.shape))).clamp(0, 1)
    assert compared(spec, values, noisy, tier).is_explained(spec, tier, TOLERANCES["float32"])
    assert not compared(spec, values, torch.rand(16, 15, 4), tier).is_explained(spec, tier, TOLERANCES["float32"])


def test_a_level_of_int8_is_its_scale() -> None:
    spec = spec_of("symmetric", (3, 1), ("channel",))
    now, then = torch.tensor([[12.7], [1.0], [0.0]]), torch.tensor([[12.7], [1.3], [0.0]])
    found = compared(spec, now, then)
    assert found.largest_levels == pytest.approx(3)
    assert (found.apart, found.identical, found.numbers) == (1, 3, 4)
    assert not found.is_explained(spec, "int8", TOLERANCES["float32"])


def test_the_same_integers_under_another_scale_do_not_agree() -> None:
    spec = spec_of("symmetric", (3, 1), ("channel",))
    values = torch.tensor([[12.7], [-1.0], [5.0]])
    found = compared(spec, values, 2 * values)
    assert found.identical == 3
    assert found.largest_levels == pytest.approx(127)


def test_a_channel_that_is_constant_but_for_rounding_is_not_held_to_its_noise() -> None:
    spec = spec_of("affine", (50, 1), ("channel",))
    found = compared(spec, *(1 + 1e-6 * torch.randn(50, 1) for _ in range(2)))
    assert found.largest_levels < 0.01


def test_an_absent_channel_has_a_level_of_one() -> None:
    spec = spec_of("float32", (4, 2))
    zeros = torch.zeros(4, 2)
    assert quantisation_level(spec, "int8", zeros, {"f": zeros}).tolist() == [[1.0, 1.0]]


def test_two_queries_may_change_places() -> None:
    """Where a decoder takes its queries in the order of their scores, another device may order two otherwise."""
    spec = spec_of("float16", (30, 3))
    now = torch.randn(30, 3)
    swapped = now[[1, 0, *range(2, 30)]]
    found = compared(spec, now, swapped)
    assert found.largest_levels > 10
    assert found.is_explained(spec, "int8", TOLERANCES["float32"])
    assert not compared(spec, now, now.flip(0)).is_explained(spec, "int8", TOLERANCES["float32"])
    assert compared(spec, now, now.flip(0)).is_explained(spec, "int8", TOLERANCES["bfloat16"])


def test_agreements_of_frames_add_up() -> None:
    first, second = Agreement(3, 4, 0.5, 1, 4), Agreement(4, 4, 0.2, 0, 4)
    assert first.with_frame(second) == Agreement(7, 8, 0.5, 1, 8)
