"""Dequantising on the device gives what the cache's own decoder gives, for every encoding and tier."""

import numpy as np
import pytest
import torch

from cache.quantise import decode, encode
from schemas.features import TIERS, FeatureSpec, Tier
from train.targets import dequantise

SPECS = [
    FeatureSpec(
        name="bev",
        dims=("y", "x", "channel"),
        shape=(4, 3, 5),
        encoding="affine",
        scale_dims=("channel",),
        description=".",
    ),
    FeatureSpec(
        name="offsets",
        dims=("y", "head", "point", "axis"),
        shape=(4, 2, 3, 2),
        encoding="symmetric",
        scale_dims=("head", "axis"),
        scale_name="temporal_scale",
        description=".",
    ),
    FeatureSpec(name="weights", dims=("y", "point"), shape=(4, 3), encoding="unit", description="."),
    FeatureSpec(name="logits", dims=("query", "class"), shape=(6, 2), encoding="float16", description="."),
    FeatureSpec(name="boxes", dims=("query", "code"), shape=(6, 10), encoding="float32", description="."),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.encoding)
@pytest.mark.parametrize("tier", TIERS)
def test_equal_to_the_decoder_of_the_cache(spec: FeatureSpec, tier: Tier) -> None:
    rng = np.random.default_rng(0)
    frames = [[encode(spec, rng.random(spec.shape, dtype=np.float32), tier) for _ in range(3)] for _ in range(2)]
    stored = {
        array.name: torch.from_numpy(np.array([[frame[array.name] for frame in row] for row in frames]))
        for array in spec.stored(tier)
    }
    decoded = dequantise(spec, tier, stored)
    assert decoded.shape == (2, 3, *spec.shape)
    expected = np.array([[decode(spec, frame, tier) for frame in row] for row in frames])
    np.testing.assert_allclose(decoded.numpy(), expected, rtol=1e-6, atol=1e-6)
