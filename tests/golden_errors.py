"""How far we are from the official BEVFormer, tensor group by tensor group. Run it: ``python -m tests.golden_errors``.

The tests hold each group to the tolerance written here.
"""

import json
import math

import numpy as np
import torch
from numpy.typing import NDArray

from detectors.config import HeadConfig, LossConfig
from detectors.decoding import decode_queries
from detectors.detection_loss import detection_losses
from detectors.ego_motion import continues, map_shift, relative_can_bus, state_after
from detectors.inputs import CameraBatch
from detectors.matching import match
from detectors.outputs import TemporalState
from detectors.targets import BoxTargets, targets_of
from schemas.bev_grid import BevGrid
from schemas.boxes import Boxes
from tests.golden_backbone import backbone_errors
from tests.golden_mini import CASES, GOLDEN_MINI, golden_queries, mini_config, run_case
from tests.golden_recipe import GOLDEN

TENSOR_TOLERANCES = {
    "enc_layers": 1e-4,
    "bev_embed": 1e-4,
    "tsa_loc": 1e-4,
    "tsa_w": 1e-4,
    "prev_bev_rotated": 0.0,
    "ref_cam": 1e-5,
    "bev_mask": 0.0,
    "sca_loc_layer0": 1e-5,
    "sca_w_layer0": 1e-5,
    "hs": 1e-4,
    "init_ref": 1e-6,
    "inter_ref": 1e-5,
    "dec_loc": 1e-4,
    "dec_w": 1e-4,
    "cls": 1e-4,
    "bbox": 2e-3,
}
"""Largest absolute difference allowed, as measured between two implementations when the golden data were made."""

TEMPORAL_GRID = BevGrid(rows=50, cols=50, extent_m=(-51.2, -51.2, -5, 51.2, 51.2, 3))
"""The map of the model that the golden shifts were computed with."""


def case_errors(number: int) -> dict[str, float]:
    """Largest difference of every tensor of one case."""
    ours = run_case(number)
    prefix = f"case{number}_"
    golden = {name.removeprefix(prefix): array for name, array in GOLDEN_MINI.items() if name.startswith(prefix)}
    visible = golden.get("bev_mask")
    if visible is not None:
        # Reference points behind a camera are numerically wild, and so are they for whoever samples there.
        ours["ref_cam"], golden["ref_cam"] = ours["ref_cam"][visible], golden["ref_cam"][visible]
    if "sca_loc_layer0" in golden:
        for name in ("sca_loc_layer0", "sca_w_layer0"):
            ours[name], golden[name] = _visible_rows(ours[name]), _visible_rows(golden[name])
    return {name: _difference(ours[name], array) for name, array in golden.items()}


def annotations() -> Boxes:
    """The golden ground truth; the golden file has bottom centres."""
    rows = GOLDEN_MINI["gt_boxes_bottom_center"].astype(np.float64)
    center_m = rows[:, :3].copy()
    center_m[:, 2] += rows[:, 5] / 2
    return Boxes(
        center_m=center_m,
        size_wlh_m=rows[:, 3:6],
        yaw_rad=rows[:, 6],
        velocity_mps=rows[:, 7:9],
        has_velocity=np.ones(len(rows), dtype=np.bool_),
        labels=GOLDEN_MINI["gt_labels"].astype(np.int64),
    )


def golden_targets() -> BoxTargets:
    """The golden ground truth, encoded."""
    return targets_of([annotations()], mini_config().grid, torch.device("cpu"))[0]


def loss_errors() -> dict[str, float]:
    """Differences of the losses computed from the official outputs of case 1."""
    config = LossConfig()
    losses = detection_losses(golden_queries(1), [golden_targets()], torch.tensor(config.code_weights), config)
    return {name: abs(float(loss) - float(GOLDEN_MINI[_golden_loss(name)])) for name, loss in losses.items()}


def assignments() -> NDArray[np.int64]:
    """Per decoder layer and query of case 1, 1 + the index of the object assigned to it, or 0."""
    queries = golden_queries(1)
    pairs = match(queries.logits[:, 0], queries.boxes[:, 0], golden_targets(), LossConfig())
    assigned = np.zeros(queries.logits.shape[:3:2], dtype=np.int64)
    for layer, (chosen, given) in enumerate(pairs):
        assigned[layer, chosen] = given + 1
    return assigned


def decoding_errors() -> dict[str, float]:
    """Differences of the detections decoded from the official outputs of case 1."""
    boxes = decode_queries(golden_queries(1), HeadConfig())[0]
    rows = np.concatenate(
        [boxes.center_m, boxes.size_wlh_m, boxes.yaw_rad[:, None], boxes.velocity_mps], axis=1, dtype=np.float64
    )
    assert boxes.scores is not None
    return {
        "decoded_bboxes": _difference(rows, GOLDEN_MINI["decoded_bboxes"]),
        "decoded_scores": _difference(boxes.scores, GOLDEN_MINI["decoded_scores"]),
        "decoded_labels": _difference(boxes.labels, GOLDEN_MINI["decoded_labels"]),
    }


def temporal_errors() -> dict[str, float]:
    """Differences of the CAN-bus vectors and map shifts of the inference protocol; both are exact arithmetic."""
    golden = json.loads((GOLDEN / "bevformer_temporal.json").read_text())
    state: TemporalState | None = None
    errors = {"inference can_bus": 0.0, "inference shift_xy": 0.0, "inference has_prev": 0.0}
    for absolute, scene, frame in zip(absolute_can_bus(), golden["scene"], golden["inference"], strict=True):
        batch = motion_only(absolute, scene)
        can_bus = relative_can_bus(batch, state)
        found = {
            "inference can_bus": _difference(can_bus[0].numpy(), np.array(frame["can_bus"])),
            "inference shift_xy": _difference(
                map_shift(can_bus, TEMPORAL_GRID)[0].numpy(), np.array(frame["shift_xy"])
            ),
            "inference has_prev": float(continues(batch.scene_tokens, state)[0] != frame["has_prev"]),
        }
        errors = {name: max(errors[name], found[name]) for name in errors}
        state = state_after(batch, torch.zeros(1, 1, 1))
    return errors


def absolute_can_bus() -> list[list[float]]:
    """The golden sequence's CAN-bus vectors with pose and yaw filled in, as a data loader hands them over."""
    golden = json.loads((GOLDEN / "bevformer_temporal.json").read_text())
    vectors = []
    for raw, translation, (w, x, y, z) in zip(
        golden["raw_can_bus"], golden["ego2global_translation"], golden["ego2global_rotation_wxyz"], strict=True
    ):
        yaw_rad = math.atan2(2 * (x * y + w * z), 1 - 2 * (y * y + z * z)) % math.tau
        vectors.append([*translation, w, w, w, w, *raw[7:16], yaw_rad, math.degrees(yaw_rad)])
    return vectors


def motion_only(can_bus: list[float], scene: str) -> CameraBatch:
    """A frame of which only the ego motion matters."""
    return CameraBatch(
        images=torch.zeros(1, 6, 3, 1, 1),
        image_from_lidar=torch.eye(4).expand(1, 6, 4, 4),
        can_bus=torch.tensor([can_bus], dtype=torch.float64),
        scene_tokens=(scene,),
    )


def all_errors() -> dict[str, float]:
    """Largest difference of every tensor group, over all the cases and models that have it."""
    largest: dict[str, float] = {}
    parts = [case_errors(number) for number in range(len(CASES))]
    parts += [loss_errors(), decoding_errors(), temporal_errors()]
    parts.append({"assigned_gt_inds": _difference(assignments(), GOLDEN_MINI["assigned_gt_inds"])})
    parts += [backbone_errors(model) for model in ("base", "small", "tiny")]
    for errors in parts:
        for group, error in errors.items():
            largest[group] = max(error, largest.get(group, 0.0))
    return largest


def _golden_loss(name: str) -> str:
    return "loss/" + name.replace(".", "_")


def _visible_rows(padded: NDArray[np.generic]) -> NDArray[np.generic]:
    counts = GOLDEN_MINI["case0_bev_mask"].any(axis=-1)[:, 0].sum(axis=1)
    return np.concatenate([rows[:count] for rows, count in zip(padded, counts, strict=True)])


def _difference(ours: NDArray[np.generic], golden: NDArray[np.generic]) -> float:
    assert ours.shape == golden.shape, (ours.shape, golden.shape)
    return float(np.abs(ours.astype(np.float64) - golden.astype(np.float64)).max())


if __name__ == "__main__":
    for group, error in all_errors().items():
        print(f"{group:20s} {error:.1e}")
