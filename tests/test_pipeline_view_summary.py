"""The summary of a cache: bytes, ranges and dead channels, exact on values that are known."""

from pathlib import Path

import numpy as np
import pytest
from cache_fakes import SLOTS, SPECS, features_of, manifest_of, rows_of, token_of, write_cache

from cache.reading import Cache, open_cache
from cache.writing import open_for_writing
from pipeline.cache_summary import feature_values, print_summary, sampled_tokens
from schemas.features import Tier, frame_bytes
from schemas.fidelity import FeatureFidelity, Fidelity

DEAD = (1, 4)


def cache_with_dead_channels(path: Path, tier: Tier = "int8") -> Cache:
    writer = open_for_writing(path, manifest_of(tier=tier), SLOTS)
    slot = SLOTS[0]
    with writer.scene(slot.name) as scene:
        for step in range(slot.length):
            features = features_of(slot, step)
            features["bev"][..., DEAD] = 0.75
            features["bev"][..., 2] = step  # constant in each frame, but not over frames
            features["bev"][1, 2, 0] = -20.0
            features["bev"][2, 3, 5] = 30.0
            features["query_boxes"][:, 9] = 0.0
            scene.append(features)
        scene.commit(rows_of(slot))
    return open_cache(path)


@pytest.mark.parametrize("tier", ["int8", "float16", "archive"])
def test_a_channel_of_one_value_is_dead_and_the_range_is_exact(tmp_path: Path, tier: Tier) -> None:
    cache = cache_with_dead_channels(tmp_path / "cache", tier)
    found = feature_values(cache, cache.manifest.feature("bev"), sampled_tokens(cache))
    assert found.dead == tuple((channel,) for channel in DEAD)
    assert found.channels == 6
    assert found.non_finite == 0
    assert found.low == pytest.approx(-20.0, rel=1e-6)
    assert found.high == pytest.approx(30.0, rel=1e-6)
    boxes = feature_values(cache, cache.manifest.feature("query_boxes"), sampled_tokens(cache))
    assert boxes.dead == ((9,),)
    offsets = feature_values(cache, cache.manifest.feature("temporal_offsets"), sampled_tokens(cache))
    assert (offsets.channels, offsets.dead) == (4, ())


def test_values_that_are_not_finite_are_counted_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cache_with_dead_channels(tmp_path / "cache")
    spoilt = np.ones((4, 5, 6), dtype=np.float32)
    spoilt[0, 0, 3], spoilt[1, 1, 1], spoilt[2, 2, 0] = np.nan, np.inf, 2.0
    monkeypatch.setattr(cache, "read", lambda *_: spoilt)
    found = feature_values(cache, cache.manifest.feature("bev"), ["any"])
    assert (found.non_finite, found.low, found.high) == (2, 1.0, 2.0)


def test_the_summary_tells_everything_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = cache_with_dead_channels(tmp_path / "cache")
    print_summary(cache)
    printed = capsys.readouterr().out
    words = " ".join(printed.split())
    assert "Dead in bev (channel): 1, 4" in words
    assert "Dead in query_boxes (code): 9" in words
    assert "Values, over 3 of 3 frames" in words
    assert "scenes │ 1 of 3" in words
    assert "teacher │ fake" in words
    assert cache.manifest.fingerprint[:16] in words
    assert "4 × 5 cells of 25.6 × 20.48 m" in words
    total = 3 * frame_bytes(SPECS, "int8")
    assert f"all │ │ │ {total // 3} B │ {total / 1e3:.3g} kB" in words
    assert "bev │ 4 × 5 × 6 │ int8 │ 124 B │ 372 B" in words


def test_a_cache_without_scenes_has_no_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cache(tmp_path / "cache", slots=())
    print_summary(open_cache(tmp_path / "cache"))
    assert "holds no scene yet" in capsys.readouterr().out


def test_the_fidelity_that_was_measured_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = write_cache(tmp_path / "cache")
    print_summary(open_cache(tmp_path / "cache"))
    assert "Fidelity" not in capsys.readouterr().out
    bev = FeatureFidelity(name="bev", centred_error=0.0125, cosine=0.99, largest_error=0.25, largest_error_std=0.5)
    writer.write_fidelity(Fidelity(frames=3, features=(bev,)))
    print_summary(open_cache(tmp_path / "cache"))
    words = " ".join(capsys.readouterr().out.split())
    assert "Fidelity, as measured when the cache was filled (3 frames)" in words
    assert "0.990000 │ 0.25 │ 0.5" in words


def test_sampled_frames_are_spread_over_the_cache(tmp_path: Path) -> None:
    write_cache(tmp_path / "cache")
    cache = open_cache(tmp_path / "cache")
    every = [token_of(slot, step) for slot in SLOTS for step in range(slot.length)]
    assert sampled_tokens(cache) == every
    assert sampled_tokens(cache, 3) == [every[0], every[4], every[-1]]
