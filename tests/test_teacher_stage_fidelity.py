"""How far cached is from live: the numbers against their definitions, the boxes, and the words."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from fidelity_fakes import (
    A_FRAME,
    BEV,
    QUERIES,
    CellBoxes,
    NoDecoder,
    boxes_at,
    frame_features,
    live_frame,
    manifest_of,
    spec_of,
    teacher_of,
)
from torch import Tensor

from pipeline.fidelity_table import box_sentence, print_fidelity
from pipeline.teacher_stage.decoded_boxes import BoxComparison, matched_boxes
from pipeline.teacher_stage.feature_error import FeatureError
from pipeline.teacher_stage.fidelity import FidelityMeter
from pipeline.teacher_stage.network import LIVE_BEV
from pipeline.teacher_stage.reduced_grid import averaged_to
from schemas.boxes import empty_boxes
from schemas.features import Tier
from schemas.fidelity import BoxFidelity, Fidelity
from schemas.frames import CameraInputs


def measured(network: Any, *frames: Mapping[str, Tensor], tier: Tier = "int8") -> Fidelity:
    manifest = manifest_of(BEV, QUERIES, tier=tier)
    meter = FidelityMeter(teacher_of(network), manifest, len(frames))
    for features in frames:
        assert not meter.complete
        meter.observe(live_frame(features, manifest))
    assert meter.complete
    return meter.result()


def test_the_errors_are_those_of_their_definitions_over_all_frames_together() -> None:
    stream = np.random.default_rng(0)
    live = [stream.normal(7, (1 + number), (6, 5, 3)) * [1, 10, 100] for number in range(3)]
    cached = [values + stream.normal(0, 0.1, values.shape) for values in live]
    error = FeatureError(spec_of("affine", (6, 5, 3), ("channel",)))
    for one, other in zip(live, cached, strict=True):
        error.add(torch.from_numpy(one), torch.from_numpy(other))
    found = error.result()

    differences = np.stack(cached) - np.stack(live)
    means = np.stack(live).mean(axis=(1, 2), keepdims=True)
    centred, off_centre = np.stack(live) - means, np.stack(cached) - means
    assert found.centred_error == pytest.approx(np.linalg.norm(differences) / np.linalg.norm(centred))
    cosine = (centred * off_centre).sum() / np.linalg.norm(centred) / np.linalg.norm(off_centre)
    assert found.cosine == pytest.approx(cosine)
    assert found.largest_error == pytest.approx(np.abs(differences).max())
    assert found.largest_error_std == pytest.approx(
        (np.abs(differences).max(axis=(1, 2)) / centred.std(axis=(1, 2))).max()
    )


def test_a_channels_mean_does_not_flatter() -> None:
    live = torch.randn(20, 20, 2) + 1000
    error = FeatureError(spec_of("affine", (20, 20, 2), ("channel",)))
    error.add(live, live + 0.5 * torch.randn(20, 20, 2))
    found = error.result()
    assert found.centred_error == pytest.approx(0.5, abs=0.05)


def test_a_shift_of_a_whole_channel_is_an_error() -> None:
    live = torch.randn(20, 20, 2)
    error = FeatureError(spec_of("affine", (20, 20, 2), ("channel",)))
    error.add(live, live + 2)
    found = error.result()
    assert found.centred_error == pytest.approx(2, abs=0.1)
    assert found.cosine is not None
    assert found.cosine < 0.6


@pytest.mark.parametrize("value", [0.0, 0.1, -3e8])
def test_constant_channels_have_no_spread_to_compare_with(value: float) -> None:
    """The mean of many equal floats may differ from them by a rounding; that is no spread."""
    live = torch.full((37, 11, 2), value)
    error = FeatureError(spec_of("affine", (37, 11, 2), ("channel",)))
    error.add(live, live + 1)
    found = error.result()
    assert (found.centred_error, found.cosine, found.largest_error_std) == (None, None, 0)
    assert found.largest_error == pytest.approx(1 if abs(value) < 1e6 else 0, abs=1e-6)


def test_a_feature_without_scale_dims_is_centred_along_its_last_dimension() -> None:
    live = torch.randn(50, 3) + torch.tensor([0.0, 100.0, 10_000.0])
    error = FeatureError(spec_of("float16", (50, 3)))
    error.add(live, live.half().float())
    found = error.result()
    assert found.centred_error is not None
    assert found.centred_error > 0.5  # float16 steps by 8 near 10,000


def test_a_feature_of_one_dimension_is_one_channel() -> None:
    error = FeatureError(spec_of("float32", (50,)))
    error.add(torch.randn(50) + 9, torch.randn(50) + 9)
    found = error.result()
    assert found.centred_error is not None
    assert 0.5 < found.centred_error < 3


def test_a_meter_measures_what_the_cache_stores() -> None:
    fidelity = measured(CellBoxes(), frame_features(1), frame_features(2))
    bev, queries = fidelity.features
    assert (fidelity.frames, bev.name, queries.name) == (2, "bev", "queries")
    assert bev.centred_error is not None
    assert 0.001 < bev.centred_error < 0.02
    assert bev.largest_error_std < 0.03
    assert queries.centred_error is not None
    assert queries.centred_error < 0.001


def test_the_tier_decides_the_error() -> None:
    int8, float16, archive = (
        measured(CellBoxes(), frame_features(1), tier=tier).features[0] for tier in ("int8", "float16", "archive")
    )
    assert int8 == archive
    assert int8.centred_error is not None
    assert float16.centred_error is not None
    assert float16.centred_error < int8.centred_error / 5


def test_boxes_tell_the_quantisation_of_the_map() -> None:
    """Each box's centre and logit are read off the map, so they change by as much as the map does."""
    features = frame_features(1, logit=2.0)
    fidelity = measured(CellBoxes(), features)
    boxes = fidelity.boxes
    assert boxes is not None
    assert (boxes.chosen, boxes.boxes, boxes.unmatched) == ("score", 64, 0)
    assert boxes.score_change_mean is not None
    assert boxes.center_change_max_m is not None
    step = float((features["bev"].amax((0, 1)) - features["bev"].amin((0, 1)))[:2].norm()) / 254
    assert 0 < boxes.center_change_max_m <= step / 2 * 1.001
    assert 0 < boxes.score_change_mean < 0.01


def test_without_a_box_above_the_threshold_the_best_are_compared() -> None:
    boxes = measured(CellBoxes(), frame_features(1, logit=-9.0), frame_features(2, logit=-9.0)).boxes
    assert boxes is not None
    assert (boxes.chosen, boxes.boxes, boxes.unmatched) == ("best", 100, 0)
    assert "each frame's best 50: 100 boxes" in box_sentence(boxes)


def test_one_frame_with_a_good_box_is_enough_for_the_threshold() -> None:
    boxes = measured(CellBoxes(), frame_features(1, logit=-9.0), frame_features(2, logit=9.0)).boxes
    assert boxes is not None
    assert (boxes.chosen, boxes.boxes) == ("score", 64)


def test_a_reduced_cache_is_compared_with_the_map_the_teacher_decodes() -> None:
    network = CellBoxes()
    reduced = averaged_to(network, 4)
    manifest = manifest_of(*reduced.feature_specs(), grid=reduced.grid)
    inputs = CameraInputs(A_FRAME, np.zeros((6, 3, 4, 4), dtype=np.float32), np.zeros((6, 4, 4)))
    features, _ = reduced.features(inputs, None)
    assert features["bev"].shape == (4, 4, 4)
    assert torch.equal(features[LIVE_BEV], frame_features(0)["bev"])
    meter = FidelityMeter(teacher_of(reduced), manifest, 1)
    meter.observe(live_frame(features, manifest))
    found = meter.result()
    assert network.decoded == [(8, 8, 4), (8, 8, 4)]
    assert found.features[0].centred_error is not None
    assert found.features[0].centred_error < 0.02, "the error of a feature is that of its quantisation"
    assert found.boxes is not None
    assert found.boxes.center_change_mean_m is not None
    assert found.boxes.center_change_mean_m > 0.2, "the boxes pay for the grid as well"


def test_a_teacher_without_a_decoder_has_no_boxes_to_tell() -> None:
    assert measured(NoDecoder(), frame_features(1)).boxes is None


def test_without_a_cached_map_there_are_no_boxes_to_tell() -> None:
    manifest = manifest_of(QUERIES)
    meter = FidelityMeter(teacher_of(CellBoxes()), manifest, 1)
    meter.observe(live_frame(frame_features(1), manifest))
    assert meter.result().boxes is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 7e4])
def test_a_frame_that_is_not_fit_to_be_stored_does_not_count(bad: float) -> None:
    manifest = manifest_of(BEV, QUERIES)
    meter = FidelityMeter(teacher_of(CellBoxes()), manifest, 2)
    unfit = frame_features(1)
    unfit["queries"][0, 0] = bad  # 7e4 is beyond float16
    for features in (frame_features(1), unfit, frame_features(2)):
        meter.observe(live_frame(features, manifest))
    assert meter.complete
    assert meter.result() == measured(CellBoxes(), frame_features(1), frame_features(2))


def test_boxes_match_their_class_and_within_two_metres() -> None:
    live = boxes_at([[0, 0, 0], [10, 0, 0], [20, 0, 0]], [0.9, 0.8, 0.7], labels=[0, 1, 1])
    cached = boxes_at([[20, 2.1, 0], [10, 0, 1.9], [0.5, 0, 0], [0.1, 0, 0]], [0.7, 0.8, 0.9, 0.2], labels=[1, 1, 0, 1])
    chosen, partners = matched_boxes(live, cached)
    assert chosen.tolist() == [0, 1]
    assert partners.tolist() == [2, 1]


def test_a_box_whose_partner_dropped_out_takes_nobody_elses() -> None:
    live = boxes_at([[0, 0, 0], [1, 0, 0]], [0.9, 0.11])
    cached = boxes_at([[0.01, 0, 0]], [0.9])
    chosen, partners = matched_boxes(live, cached)
    assert (chosen.tolist(), partners.tolist()) == ([0], [0])


@pytest.mark.parametrize(("live", "cached"), [(0, 3), (3, 0), (0, 0)])
def test_frames_without_boxes_are_frames_too(live: int, cached: int) -> None:
    comparison = BoxComparison()
    comparison.add(*(boxes_at(np.zeros((count, 3)), np.full(count, 0.5)) for count in (live, cached)))
    found = comparison.result()
    assert (found.boxes, found.unmatched) == (live, live)
    assert found.score_change_mean is found.center_change_max_m is None


def test_empty_detections_are_compared() -> None:
    comparison = BoxComparison()
    comparison.add(empty_boxes(scored=True), empty_boxes(scored=True))
    assert "0 boxes. None is found again" in box_sentence(comparison.result())


def sentence(**changes: Any) -> str:
    comparison = BoxComparison()
    comparison.add(boxes_at([[0, 0, 0], [9, 0, 0]], [0.9, 0.3]), boxes_at([[0, 0.25, 0]], [0.85]))
    return box_sentence(BoxFidelity.model_validate(comparison.result().model_dump() | changes))


def test_the_sentence_on_boxes_tells_everything() -> None:
    assert sentence() == (
        "Boxes of the live BEV with a score above 0.1: 2 boxes. Decoded from the cached BEV, 1 is not found again "
        "within 2 m (the best of them scores 0.3); scores change by 0.05 on average and 0.05 at most, "
        "centres move by 0.25 m and 0.25 m."
    )
    assert "0.1: 1 box. Decoded from the cached BEV, all are found again; scores" in sentence(boxes=1, unmatched=0)
    assert "2 are not found again" in sentence(boxes=3, unmatched=2)


def test_the_table_has_a_row_for_each_feature(capsys: pytest.CaptureFixture[str]) -> None:
    print_fidelity(measured(NoDecoder(), frame_features(1)), "Cached against live")
    printed = capsys.readouterr().out
    assert "Cached against live (1 frame)" in printed
    assert "│ bev " in printed
    assert "│ queries " in printed
    assert "%" in printed
    assert "no boxes are compared" in printed


def test_a_constant_feature_is_named_so(capsys: pytest.CaptureFixture[str]) -> None:
    manifest = manifest_of(QUERIES)
    meter = FidelityMeter(teacher_of(NoDecoder()), manifest, 1)
    meter.observe(live_frame({"queries": torch.ones(5, 3)}, manifest))
    print_fidelity(meter.result(), "Cached against live")
    assert capsys.readouterr().out.count("constant") == 2
