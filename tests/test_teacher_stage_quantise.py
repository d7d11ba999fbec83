"""Quantisation on the teacher's device gives the bytes that the cache's own quantisation would."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from torch import Tensor

from cache.quantise import encode
from pipeline.teacher_stage.quantise import quantise, refuse_unfit
from schemas.errors import CacheError
from schemas.features import TIERS, Encoding, FeatureSpec, Tier

DIMS = ("y", "x", "channel")
ENCODINGS: tuple[Encoding, ...] = ("affine", "symmetric", "unit", "float16", "float32")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def spec_of(encoding: Encoding, shape: tuple[int, ...], scale_dims: Sequence[str] = (), name: str = "f") -> FeatureSpec:
    dims = DIMS[: len(shape)]
    chosen = tuple(scale_dims) or (dims[-1:] if encoding in ("affine", "symmetric") else ())
    return FeatureSpec(
        name=name, dims=dims, shape=shape, encoding=encoding, scale_dims=chosen, description="A feature."
    )


def assert_same_outcome(spec: FeatureSpec, values: Tensor, tier: Tier) -> None:
    """The same bytes, or a refusal by both."""
    try:
        expected = encode(spec, as_array(values), tier)
    except CacheError:
        with pytest.raises(CacheError):
            stored_by_device(spec, values, tier)
        return
    found = stored_by_device(spec, values, tier)
    assert found.keys() == expected.keys() == {array.name for array in spec.stored(tier)}
    for array in spec.stored(tier):
        ours, theirs = found[array.name], expected[array.name]
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape) == (np.dtype(array.dtype), array.shape)
        assert ours.flags.c_contiguous
        assert ours.tobytes() == theirs.tobytes(), array.name


def stored_by_device(spec: FeatureSpec, values: Tensor, tier: Tier) -> dict[str, NDArray[np.generic]]:
    frame = quantise([spec], {spec.name: values}, tier)
    refuse_unfit([spec], frame, tier)
    return frame.on_host()


def as_array(values: Tensor) -> NDArray[np.generic]:
    """NumPy knows no bfloat16; its values are float32's."""
    array: NDArray[np.generic] = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return array


@st.composite
def specs_and_values(draw: st.DrawFn) -> tuple[FeatureSpec, Tensor]:
    shape = draw(array_shapes(min_dims=1, max_dims=3, max_side=5))
    encoding = draw(st.sampled_from(ENCODINGS))
    dims = DIMS[: len(shape)]
    scaled = draw(st.sets(st.sampled_from(dims), min_size=1)) if encoding in ("affine", "symmetric") else set()
    spec = spec_of(encoding, shape, [dim for dim in dims if dim in scaled])
    reach = draw(st.sampled_from([1e-44, 1e-38, 1e-3, 1.0, 300.0, 7e4, 3.4e38]))
    low = 0.0 if encoding == "unit" and draw(st.booleans()) else -reach
    limit = float(np.float32(reach))
    elements = st.floats(max(low, -limit), limit, width=64) | st.sampled_from([0.0, -0.0, 0.5, 1.0, limit])
    array = draw(arrays(np.float64, shape, elements=elements))
    return spec, torch.from_numpy(array).to(draw(st.sampled_from(DTYPES)))


@settings(max_examples=400)
@given(specs_and_values(), st.sampled_from(TIERS))
def test_the_device_and_the_cache_give_the_same_bytes(case: tuple[FeatureSpec, Tensor], tier: Tier) -> None:
    assert_same_outcome(*case, tier)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_whole_maps_are_the_same(encoding: Encoding, dtype: torch.dtype, tier: Tier) -> None:
    """Large enough for vectorised code and for every block of the cache's own passes."""
    values = torch.randn(70, 61, 24) * torch.logspace(-4, 3, 24) + torch.linspace(-5, 5, 24)
    values[..., 3] = 7.25
    values[..., 4] = -0.0
    if encoding == "unit":
        values = values.softmax(dim=-1)
    assert_same_outcome(spec_of(encoding, (70, 61, 24)), values.to(dtype), tier)


@pytest.mark.parametrize("encoding", ["affine", "symmetric"])
def test_halves_round_to_even_on_both(encoding: Encoding) -> None:
    steps = torch.arange(-254, 255, dtype=torch.float32)[:, None] / 2
    assert_same_outcome(spec_of(encoding, (509, 1)), steps, "int8")


def test_every_half_step_of_a_weight_is_the_same() -> None:
    halves = (torch.arange(509, dtype=torch.float32) / 508)[:, None]
    around = torch.cat([halves, halves.nextafter(torch.tensor(1.0)), halves.nextafter(torch.tensor(0.0))])
    assert_same_outcome(spec_of("unit", (1527, 1)), around, "int8")


def test_a_view_is_stored_in_the_order_of_its_dims() -> None:
    channel_first = torch.randn(3, 4, 5)
    for encoding in ENCODINGS:
        values = channel_first.sigmoid() if encoding == "unit" else channel_first
        assert_same_outcome(spec_of(encoding, (4, 5, 3)), values.permute(1, 2, 0), "int8")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_stored_frame_is_not_the_teachers_memory(encoding: Encoding) -> None:
    """A teacher may fill the same buffer with its next frame while this one waits for the disk."""
    spec, buffer = spec_of(encoding, (4, 3)), torch.rand(4, 3)
    expected = encode(spec, buffer.numpy().copy(), "int8")
    frame = quantise([spec], {"f": buffer}, "int8")
    buffer.fill_(0.25)
    for name, array in frame.on_host().items():
        assert array.tobytes() == expected[name].tobytes()


def test_two_channels_far_apart_are_both_kept() -> None:
    """The whole feature spans more than float32 can hold; no channel does."""
    values = torch.tensor([[-3e38, 3e38], [-3.1e38, 3.1e38]])
    spec = spec_of("affine", (2, 2), ["x"])
    assert "f" in encode(spec, values.numpy(), "int8")
    assert_same_outcome(spec, values, "int8")


def test_other_features_are_ignored() -> None:
    frame = quantise([spec_of("float32", (2,))], {"f": torch.ones(2), "live_bev": torch.ones(9)}, "int8")
    assert list(frame.arrays) == ["f"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("tier", TIERS)
def test_nothing_non_finite_is_stored(encoding: Encoding, bad: float, tier: Tier) -> None:
    values = torch.full((3, 2), 0.5)
    values[1, 1] = bad
    with pytest.raises(
        CacheError, match=r"f holds values that are NaN or infinite .* nothing non-finite is ever stored"
    ):
        stored_by_device(spec_of(encoding, (3, 2)), values, tier)


def test_a_float64_beyond_float32_is_refused() -> None:
    with pytest.raises(CacheError, match=r"it reaches from 1\.0 to inf"):
        stored_by_device(spec_of("float32", (2,)), torch.tensor([1.0, 1e300], dtype=torch.float64), "int8")


@pytest.mark.parametrize("wrong", [-0.01, 1.01])
def test_unit_refuses_what_is_no_weight(wrong: float) -> None:
    with pytest.raises(CacheError, match=r"f reaches from .* to .*, expected weights from 0 to 1"):
        stored_by_device(spec_of("unit", (2,)), torch.tensor([0.5, wrong]), "int8")


@pytest.mark.parametrize("edge", [-0.5, 254.5])
def test_unit_ends_where_the_cache_says_it_does(edge: float) -> None:
    """Whether a value rounds to a step outside is decided in float32, on both sides alike."""
    exact = np.float32(edge / 254)
    for value in (exact, np.nextafter(exact, np.float32(9)), np.nextafter(exact, np.float32(-9))):
        assert_same_outcome(spec_of("unit", (2,)), torch.tensor([0.5, float(value)]), "int8")


@pytest.mark.parametrize(("encoding", "tier"), [("float16", "int8"), ("affine", "float16")])
def test_float16_refuses_what_would_overflow(encoding: Encoding, tier: Tier) -> None:
    values = torch.tensor([[1.0], [-65505.0]])
    with pytest.raises(CacheError, match=r"f reaches from -65505 to 1, but float16 ends at ±65504: scale the feature"):
        stored_by_device(spec_of(encoding, (2, 1)), values, tier)


def test_a_channel_wider_than_float32_is_refused() -> None:
    with pytest.raises(CacheError, match=r"f reaches from -3e\+38 to 3e\+38: wider than float32 can hold"):
        stored_by_device(spec_of("affine", (2, 1)), torch.tensor([[-3e38], [3e38]]), "int8")


def test_a_promised_feature_must_be_given() -> None:
    with pytest.raises(CacheError, match=r"the teacher gave no f, which its specs promise; it gave \['g'\]"):
        quantise([spec_of("float32", (2,))], {"g": torch.ones(2)}, "int8")


def test_a_feature_must_have_the_shape_of_its_spec() -> None:
    with pytest.raises(CacheError, match=r"f has shape \(3, 2\), expected \(2, 3\) \('y', 'x'\)"):
        quantise([spec_of("float32", (2, 3))], {"f": torch.ones(3, 2)}, "int8")


def test_a_feature_must_be_floats() -> None:
    with pytest.raises(CacheError, match=r"f is torch\.int64, expected a tensor of floating point numbers"):
        quantise([spec_of("float32", (2,))], {"f": torch.ones(2, dtype=torch.int64)}, "int8")


def test_a_feature_must_be_a_tensor() -> None:
    with pytest.raises(CacheError, match=r"f is ndarray, expected a tensor of floating point numbers"):
        quantise([spec_of("float32", (2,))], {"f": np.ones(2)}, "int8")


@pytest.mark.gpu
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_gpu_gives_the_same_bytes(encoding: Encoding, tier: Tier) -> None:
    """Division by a plain number rounds otherwise there, which this would show in the scales."""
    spec, values = spec_of(encoding, (200, 200, 256)), torch.randn(200, 200, 256) * 3 + 1
    values = values.sigmoid() if encoding == "unit" else values
    expected = encode(spec, values.numpy(), tier)
    frame = quantise([spec], {"f": values.cuda()}, tier)
    for name, array in frame.arrays.items():
        assert array.cpu().numpy().tobytes() == expected[name].tobytes()
