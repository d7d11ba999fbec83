"""Box codes and detections; the decoder's tensors are held to the official ones by ``test_detectors_encoder``."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from detectors.box_code import decode_boxes, encode_boxes, inverse_sigmoid, refine
from detectors.config import HeadConfig
from detectors.decoding import decode_queries
from detectors.outputs import QueryOutputs
from schemas.boxes import Boxes
from tests.golden_errors import decoding_errors
from tests.golden_mini import golden_queries, mini_config


def test_detections_are_the_official_ones() -> None:
    errors = decoding_errors()
    assert errors["decoded_labels"] == 0
    assert errors["decoded_scores"] < 1e-6
    assert errors["decoded_bboxes"] < 1e-4


@settings(max_examples=50)
@given(numbers=arrays(np.float64, (3, 9), elements=st.floats(-50, 50, width=32)))
def test_boxes_survive_their_code(numbers: np.ndarray) -> None:
    boxes = Boxes(
        center_m=numbers[:, :3],
        size_wlh_m=np.exp(numbers[:, 3:6] / 20),
        yaw_rad=numbers[:, 6] / 16,
        velocity_mps=numbers[:, 7:],
        has_velocity=np.ones(3, dtype=np.bool_),
        labels=np.arange(3),
    )
    scores = torch.tensor([0.9, 0.5, 0.1])
    back = decode_boxes(torch.from_numpy(encode_boxes(boxes)), scores, torch.arange(3))
    for field in ("center_m", "size_wlh_m", "yaw_rad", "velocity_mps"):
        np.testing.assert_allclose(getattr(back, field), getattr(boxes, field), rtol=1e-4, atol=1e-4)
    assert back.labels.tolist() == [0, 1, 2]
    assert back.scores == pytest.approx([0.9, 0.5, 0.1])


def test_no_change_leaves_the_reference_where_it_is() -> None:
    grid = mini_config().grid
    reference = torch.tensor([[[0.5, 0.25, 0.75], [0.001, 0.999, 0.5]]])
    moved, box = refine(reference, torch.zeros(1, 2, 10), grid)
    torch.testing.assert_close(moved, reference, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(box[0, 0, [0, 1, 4]], torch.tensor([0.0, -20.48, 1.0]), atol=1e-4, rtol=0)


def test_centre_changes_move_and_the_rest_is_final() -> None:
    change = torch.arange(10.0).reshape(1, 1, 10) / 10
    moved, box = refine(torch.full((1, 1, 3), 0.5), change, mini_config().grid)
    torch.testing.assert_close(moved[0, 0], torch.tensor([0.0, 0.1, 0.4]).sigmoid())
    torch.testing.assert_close(box[0, 0, [2, 3, 5, 6, 7, 8, 9]], torch.tensor([0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9]))


def test_inverse_sigmoid_is_finite_at_the_ends() -> None:
    ends = inverse_sigmoid(torch.tensor([-0.1, 0.0, 0.5, 1.0, 1.1]))
    assert ends.isfinite().all()
    assert ends[2] == 0
    assert ends[0] == ends[1] == -ends[3] == -ends[4]


def test_detections_are_sorted_and_within_range() -> None:
    config = HeadConfig(max_detections=40, detection_range_m=(-10, -10, -10, 10, 10, 10))
    queries = golden_queries(1)
    queries.boxes[-1, 0, 0, :2] = torch.tensor([10.0, -10.0])  # on the bounds, which belong to the range
    queries.logits[-1, 0, 0] = 9
    boxes = decode_queries(queries, config)[0]
    assert boxes.scores is not None
    assert 10 <= len(boxes) < 40
    assert (np.diff(boxes.scores) <= 0).all()
    assert (np.abs(boxes.center_m) <= 10).all()
    assert boxes.labels[:10].tolist() == sorted(range(10), key=boxes.labels[:10].tolist().index)
    assert set(boxes.labels[:10]) == set(range(10))


def test_fewer_pairs_than_detections() -> None:
    queries = golden_queries(1)
    few = QueryOutputs(
        queries.features[:, :, :2], queries.positions[:, :, :2], queries.logits[:, :, :2], queries.boxes[:, :, :2]
    )
    wide = HeadConfig(detection_range_m=(-1e4,) * 3 + (1e4,) * 3)
    assert len(decode_queries(few, wide)[0]) == 20
