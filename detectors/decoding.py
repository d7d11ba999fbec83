"""Detections from the last decoder layer: the best (query, class) pairs, without non-maximum suppression."""

import torch

from detectors.box_code import decode_boxes
from detectors.config import HeadConfig
from detectors.outputs import QueryOutputs
from schemas.boxes import Boxes


@torch.no_grad()
def decode_queries(queries: QueryOutputs, config: HeadConfig) -> list[Boxes]:
    """One ``Boxes`` per sample, on the host, best score first.

    A query may appear with several labels, as published. Centres outside ``detection_range_m`` (bounds included) are
    dropped.
    """
    logits, codes = queries.logits[-1].float(), queries.boxes[-1]
    classes = logits.shape[-1]
    probabilities = logits.sigmoid().flatten(1)
    scores, pairs = probabilities.topk(min(config.max_detections, probabilities.shape[1]))
    low, high = config.detection_range_m[:3], config.detection_range_m[3:]
    detections = []
    for code, score, pair in zip(codes, scores, pairs, strict=True):
        boxes = decode_boxes(code[pair // classes], score, pair % classes)
        detections.append(boxes.select(((boxes.center_m >= low) & (boxes.center_m <= high)).all(axis=1)))
    return detections
