"""Every encoding: its error bound, its exact arithmetic, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from cache.quantise import decode, encode
from schemas.errors import CacheError
from schemas.features import Encoding, FeatureSpec, Tier

DIMS = ("y", "x", "channel")


def spec_of(encoding: Encoding, shape: tuple[int, ...], scale_dims: tuple[str, ...] = ()) -> FeatureSpec:
    dims = DIMS[: len(shape)]
    return FeatureSpec(
        name="f", dims=dims, shape=shape, encoding=encoding, scale_dims=scale_dims, description="A feature."
    )


@st.composite
def scaled_cases(draw: st.DrawFn) -> tuple[FeatureSpec, NDArray[np.float32]]:
    shape = draw(arrays.array_shapes(min_dims=1, max_dims=3, max_side=5))
    dims = DIMS[: len(shape)]
    chosen = draw(st.sets(st.sampled_from(dims), min_size=1))
    encoding: Encoding = draw(st.sampled_from(["affine", "symmetric"]))
    spec = spec_of(encoding, shape, tuple(dim for dim in dims if dim in chosen))
    limit = float(np.float32(1e38))
    return spec, draw(arrays.arrays(np.float32, shape, elements=st.floats(-limit, limit, width=32)))


@given(scaled_cases())
def test_scaled_features_come_back_within_half_a_step(case: tuple[FeatureSpec, NDArray[np.float32]]) -> None:
    spec, values = case
    stored = encode(spec, values, "int8")
    for array in spec.stored("int8"):
        assert stored[array.name].shape == array.shape
        assert stored[array.name].dtype == array.dtype
        assert stored[array.name].flags.c_contiguous
    assert np.abs(stored["f"].astype(int)).max() <= 127
    others = tuple(axis for axis, dim in enumerate(spec.dims) if dim not in spec.scale_dims)
    exact = values.astype(np.float64)
    reach = np.abs(exact).max(axis=others, keepdims=True)
    span = np.ptp(exact, axis=others, keepdims=True) if spec.encoding == "affine" else 2 * reach
    narrow = span < 255 * float(np.finfo(np.float32).tiny)  # counts as constant
    scale = np.expand_dims(stored["f_scale"].astype(np.float64), others)
    bound = np.where(narrow, span, 0.5 * scale) + 4 * np.finfo(np.float32).eps * reach
    assert (np.abs(decode(spec, stored, "int8") - exact) <= bound).all()


def test_affine_arithmetic_is_as_documented() -> None:
    """Another implementation that follows the docstring word by word gives the same bytes."""
    spec = spec_of("affine", (40, 50, 8), ("channel",))
    values = np.random.default_rng(0).normal(5, 3, spec.shape).astype(np.float32)
    low, high = values.min(axis=(0, 1)), values.max(axis=(0, 1))
    span = high - low
    scale, offset = span / np.float32(254), low + np.float32(0.5) * span
    expected = np.clip(np.rint((values - offset) / scale), -127, 127).astype(np.int8)
    stored = encode(spec, values, "int8")
    assert stored["f"].tobytes() == expected.tobytes()
    assert stored["f_scale"].tobytes() == scale.tobytes()
    assert stored["f_offset"].tobytes() == offset.tobytes()
    assert stored["f"].min() == -127
    assert stored["f"].max() == 127


def test_symmetric_arithmetic_is_as_documented() -> None:
    spec = spec_of("symmetric", (40, 50, 8), ("x", "channel"))
    values = np.random.default_rng(0).normal(0, 3, spec.shape).astype(np.float32)
    scale = np.abs(values).max(axis=0) / np.float32(127)
    stored = encode(spec, values, "int8")
    assert stored["f"].tobytes() == np.clip(np.rint(values / scale), -127, 127).astype(np.int8).tobytes()
    assert stored["f_scale"].tobytes() == scale.tobytes()


def test_halves_round_to_even() -> None:
    spec = spec_of("symmetric", (6, 1), ("x",))
    values = np.array([[127.0], [0.5], [1.5], [2.5], [-0.5], [-1.5]], dtype=np.float32)
    assert encode(spec, values, "int8")["f"].ravel().tolist() == [127, 0, 2, 2, 0, -2]


@pytest.mark.parametrize(("encoding", "constant"), [("affine", -3.25), ("affine", 0.0), ("symmetric", 0.0)])
def test_a_constant_channel_stores_zero_with_scale_one(encoding: Encoding, constant: float) -> None:
    spec = spec_of(encoding, (3, 2), ("x",))
    values = np.full((3, 2), constant, dtype=np.float32)
    stored = encode(spec, values, "int8")
    assert not stored["f"].any()
    assert (stored["f_scale"] == 1).all()
    assert (decode(spec, stored, "int8") == values).all()


@pytest.mark.parametrize("encoding", ["affine", "symmetric"])
def test_a_channel_of_subnormal_width_counts_as_constant(encoding: Encoding) -> None:
    """Subnormal numbers lose their precision, and some devices flush them to zero."""
    spec = spec_of(encoding, (2, 1), ("x",))
    stored = encode(spec, np.array([[0.0], [1e-37]], dtype=np.float32), "int8")
    assert stored["f_scale"].tolist() == [1]
    assert not stored["f"].any()


def test_a_range_of_one_ulp_does_not_wrap() -> None:
    spec = spec_of("affine", (2, 1), ("x",))
    values = np.array([[1.0], [np.nextafter(np.float32(1), np.float32(2))]], dtype=np.float32)
    stored = encode(spec, values, "int8")
    assert stored["f"].ravel().tolist() == [0, 127]
    assert np.abs(decode(spec, stored, "int8") - values).max() <= np.spacing(np.float32(1))


def test_missing_steps_decode_to_nan() -> None:
    nan = np.full(2, np.nan, dtype=np.float32)
    absent = {"f": np.full((3, 2), -128, dtype=np.int8), "f_scale": nan, "f_offset": nan}
    assert np.isnan(decode(spec_of("affine", (3, 2), ("x",)), absent, "int8")).all()
    fills = np.array([255, 254, 0], dtype=np.uint8)
    decoded = decode(spec_of("unit", (3,)), {"f": fills}, "int8")
    assert np.isnan(decoded[0])
    assert decoded[1:].tolist() == [1.0, 0.0]


@given(arrays.arrays(np.float32, (2, 3), elements=st.floats(0, 1, width=32)))
def test_unit_weights_come_back_within_half_a_step(values: NDArray[np.float32]) -> None:
    spec = spec_of("unit", (2, 3))
    stored = encode(spec, values, "int8")
    assert stored["f"].dtype == np.uint8
    assert stored["f"].max() <= 254
    assert np.abs(decode(spec, stored, "int8") - values).max() <= 0.5 / 254 + 1e-7


def test_unit_takes_what_rounding_leaves_outside() -> None:
    values = np.array([-1e-6, 1 + 1e-6], dtype=np.float32)
    assert encode(spec_of("unit", (2,)), values, "int8")["f"].tolist() == [0, 254]


@pytest.mark.parametrize("wrong", [-0.01, 1.01])
def test_unit_refuses_what_is_no_weight(wrong: float) -> None:
    with pytest.raises(CacheError, match=r"f reaches from .* expected weights from 0 to 1"):
        encode(spec_of("unit", (2,)), np.array([0.5, wrong]), "int8")


@pytest.mark.parametrize(("encoding", "tier"), [("float16", "int8"), ("affine", "float16")])
def test_float16_refuses_what_would_overflow(encoding: Encoding, tier: Tier) -> None:
    spec = spec_of(encoding, (2, 1), ("x",) if encoding == "affine" else ())
    values = np.array([[1.0], [-65505.0]], dtype=np.float32)
    with pytest.raises(CacheError, match=r"f reaches from -65505 to 1, but float16 ends at ±65504"):
        encode(spec, values, tier)
    values[1] = -65504
    assert decode(spec, encode(spec, values, tier), tier).tolist() == values.tolist()


def test_float32_is_kept_as_it_is() -> None:
    values = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32).T
    stored = encode(spec_of("float32", (4, 3)), values, "int8")["f"]
    assert stored.flags.c_contiguous
    assert (stored == values).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("encoding", ["affine", "symmetric", "unit", "float16", "float32"])
def test_nothing_non_finite_is_stored(encoding: Encoding, bad: float) -> None:
    scaled = encoding in ("affine", "symmetric")
    spec = spec_of(encoding, (3, 2), ("x",) if scaled else ())
    values = np.full((3, 2), 0.5, dtype=np.float32)
    values[1, 1] = bad
    with pytest.raises(CacheError, match=r"f holds 1 values that are NaN or infinite, the first at y 1, x 1"):
        encode(spec, values, "int8")


def test_a_range_beyond_float32_is_refused() -> None:
    values = np.array([[-3e38], [3e38]], dtype=np.float32)
    with pytest.raises(CacheError, match=r"wider than float32 can hold"):
        encode(spec_of("affine", (2, 1), ("x",)), values, "int8")


def test_a_float64_beyond_float32_is_refused() -> None:
    with pytest.raises(CacheError, match=r"NaN or infinite"):
        encode(spec_of("float32", (1,)), np.array([1e300]), "int8")


def test_shape_and_dtype_are_checked() -> None:
    spec = spec_of("float32", (2, 3))
    with pytest.raises(CacheError, match=r"f has shape \(3, 2\), expected \(2, 3\) \('y', 'x'\)"):
        encode(spec, np.zeros((3, 2)), "int8")
    with pytest.raises(CacheError, match=r"f has dtype int64, expected floating point numbers"):
        encode(spec, np.zeros((2, 3), dtype=np.int64), "int8")
