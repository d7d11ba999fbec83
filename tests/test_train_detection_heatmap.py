"""A teacher's detections drawn as a heatmap: the official ones, at their cells, as high as their scores."""

import numpy as np
import pytest
import torch
from train_fakes import EXTENT_M, boxes_of, detections, grid_of

from detectors.box_code import encode_boxes
from detectors.config import HeadConfig
from detectors.decoding import decode_queries
from detectors.outputs import QueryOutputs
from schemas.bev_grid import BevGrid
from train.detection_heatmap import detection_heatmap

GRID = grid_of(16, 16)
CAR = [12.8 + 3.2, -6.4 + 3.2, -1, 2, 4.6, 1.7, 0.3, 0, 0]
"""In the middle of the cell in row 7, column 10."""


def test_detections_are_drawn_at_their_cells_as_high_as_their_scores() -> None:
    rows = [CAR, [-30, 20, 0, 1, 1, 1, 0, 0, 0], [60, 0, 0, 2, 4, 1, 0, 0, 0], [51.2, 0, 0, 2, 4, 1, 0, 0, 0]]
    logits, codes = detections(boxes_of(rows), [(2, 1.0), (2, -1.0), (2, 5.0), (4, 5.0)])
    heatmap = detection_heatmap(logits[None], codes[None], GRID, temperature=1.0, min_radius_cells=1)[0]
    assert heatmap[2, 7, 10].item() == pytest.approx(torch.tensor(1.0).sigmoid().item())
    row, col = int((20 + 51.2) / 6.4), int((-30 + 51.2) / 6.4)
    assert heatmap[2, row, col].item() == pytest.approx(torch.tensor(-1.0).sigmoid().item())
    assert heatmap[2].max().item() == heatmap[2, 7, 10].item()  # what lies off the map is not drawn
    assert heatmap[4].max().item() < 1e-6
    softened = detection_heatmap(logits[None], codes[None], GRID, temperature=2.0, min_radius_cells=1)[0]
    assert softened[2, 7, 10].item() == pytest.approx(torch.tensor(0.5).sigmoid().item())


def test_detections_are_those_that_are_officially_decoded() -> None:
    torch.manual_seed(1)
    grid = BevGrid(rows=400, cols=400, extent_m=EXTENT_M)  # so fine that no two centres share a cell
    boxes = boxes_of(np.column_stack([np.random.default_rng(2).uniform(-50, 50, (90, 2)), np.ones((90, 7))]))
    logits, codes = torch.randn(1, 90, 10), torch.from_numpy(encode_boxes(boxes))[None]
    heatmap = detection_heatmap(logits, codes, grid, temperature=1.0, min_radius_cells=0)[0]
    queries = QueryOutputs(torch.zeros(1, 1, 90, 4), torch.zeros(2, 1, 90, 3), logits[None], codes[None])
    (decoded,) = decode_queries(queries, HeadConfig())
    assert len(decoded) == 300
    cols, rows = ((decoded.center_m[:, :2] + 51.2) / np.array(grid.cell_m)).astype(int).T
    assert decoded.scores is not None
    drawn = heatmap[decoded.labels, rows, cols].double().numpy()
    np.testing.assert_allclose(drawn, decoded.scores, rtol=1e-5)
