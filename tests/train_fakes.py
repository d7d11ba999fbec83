"""Small stand-ins for the training tests: a manifest, targets and student outputs of any size."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from detectors.box_code import encode_boxes
from detectors.config import BEVFormerConfig
from detectors.outputs import DetectorFeatures, QueryOutputs, TemporalAttention, TemporalState
from schemas.bev_grid import BevGrid
from schemas.boxes import CLASS_NAMES, Boxes
from schemas.features import FeatureSpec, Tier
from schemas.manifest import DatasetIdentity, Manifest, TeacherIdentity
from schemas.preprocessing import Preprocessing
from train.distillers.base import StudentOutputs
from train.targets import TeacherTargets

EXTENT_M = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
RGB = Preprocessing(color_order="rgb", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))


def grid_of(rows: int, cols: int) -> BevGrid:
    return BevGrid(rows=rows, cols=cols, extent_m=EXTENT_M)


def bev_spec(rows: int, cols: int, channels: int) -> FeatureSpec:
    return FeatureSpec(
        name="bev",
        dims=("y", "x", "channel"),
        shape=(rows, cols, channels),
        encoding="affine",
        scale_dims=("channel",),
        description="BEV features.",
    )


def manifest_of(specs: tuple[FeatureSpec, ...], grid: BevGrid, tier: Tier = "int8") -> Manifest:
    return Manifest(
        teacher=TeacherIdentity(name="fake", architecture="{}", weights_sha256="0" * 64, untrained=False),
        preprocessing=RGB,
        precision="float32",
        dataset=DatasetIdentity(name="synthetic", version="v1.0-mini", split="mini_train", tables_sha256="1" * 64),
        features=specs,
        tier=tier,
        class_names=CLASS_NAMES,
        grid=grid,
        program_version="0",
        device="cpu",
    )


def exact_targets(bev: Tensor, grid: BevGrid) -> TeacherTargets:
    """Targets that hold a BEV ``(batch, rows, cols, channels)`` without any rounding."""
    spec = FeatureSpec(
        name="bev", dims=("y", "x", "channel"), shape=tuple(bev.shape[1:]), encoding="float32", description="BEV."
    )
    return TeacherTargets(
        stored={"bev": bev[:, None]},
        valid=torch.ones(len(bev), 1, dtype=torch.bool),
        previous_from_current=torch.eye(4, dtype=torch.float64).expand(len(bev), 1, 4, 4),
        specs=(spec,),
        tier="int8",
        grid=grid,
    )


def stored_targets(
    specs: tuple[FeatureSpec, ...], grid: BevGrid, batch: int, frames: int, tier: Tier = "int8"
) -> TeacherTargets:
    """Targets as they come from the store, with random content; the car drives straight on, 2 m per keyframe."""
    stored = {}
    for array in [array for spec in specs for array in spec.stored(tier)]:
        shape = (batch, frames, *array.shape)
        if array.dtype == "int8":
            stored[array.name] = torch.randint(-127, 128, shape, dtype=torch.int8)
        elif array.dtype == "uint8":
            stored[array.name] = torch.randint(0, 255, shape, dtype=torch.uint8)
        else:
            stored[array.name] = torch.rand(shape).to(getattr(torch, array.dtype))
    motion = torch.eye(4, dtype=torch.float64).repeat(batch, frames, 1, 1)
    motion[..., 1, 3] = 2.0
    return TeacherTargets(
        stored=stored,
        valid=torch.ones(batch, frames, dtype=torch.bool),
        previous_from_current=motion,
        specs=specs,
        tier=tier,
        grid=grid,
    )


def at_scene_start(targets: TeacherTargets) -> TeacherTargets:
    """The same supervised frames with nothing before them."""
    valid = torch.zeros_like(targets.valid)
    valid[:, -1] = True
    stored = {name: values.clone() for name, values in targets.stored.items()}
    for values in stored.values():
        values[:, :-1] = 0
    still = torch.eye(4, dtype=torch.float64).expand_as(targets.previous_from_current)
    return replace(targets, stored=stored, valid=valid, previous_from_current=still)


def random_student(config: BEVFormerConfig, batch: int, *, history: bool = True) -> StudentOutputs:
    """What a student of this configuration could give, each output a leaf that takes gradients."""
    (rows, cols), channels, queries = config.grid.shape, config.embed_dims, config.decoder.queries
    heads, points = config.encoder.heads, config.encoder.temporal_points
    leaf = lambda values: values.requires_grad_()  # noqa: E731
    features = DetectorFeatures(
        bev=leaf(torch.randn(batch, rows, cols, channels)),
        queries=QueryOutputs(
            features=leaf(torch.randn(1, batch, queries, channels)),
            positions=leaf(torch.rand(2, batch, queries, 3)),
            logits=leaf(torch.randn(1, batch, queries, len(config.class_names))),
            boxes=leaf(torch.randn(1, batch, queries, 10)),
        ),
        temporal=TemporalAttention(
            offsets=leaf(torch.randn(batch, rows, cols, heads, 2, points, 2)),
            weights=leaf(torch.rand(batch, rows, cols, heads, 2, points).softmax(-1)),
        ),
        has_history=torch.full((batch,), history),
    )
    previous = TemporalState(
        bev=torch.randn(batch, rows * cols, channels),
        position_m=torch.zeros(batch, 3, dtype=torch.float64),
        yaw_deg=torch.zeros(batch, dtype=torch.float64),
        scene_tokens=("scene",) * batch,
    )
    return StudentOutputs(features, previous if history else None, torch.full((batch,), history))


def student_outputs(bev: Tensor) -> StudentOutputs:
    """A student whose BEV ``(batch, rows, cols, channels)`` is all that matters."""
    batch, rows, cols, channels = bev.shape
    features = DetectorFeatures(
        bev=bev,
        queries=QueryOutputs(
            features=torch.zeros(1, batch, 1, channels),
            positions=torch.zeros(2, batch, 1, 3),
            logits=torch.zeros(1, batch, 1, 10),
            boxes=torch.zeros(1, batch, 1, 10),
        ),
        temporal=TemporalAttention(
            offsets=torch.zeros(batch, rows, cols, 1, 2, 1, 2), weights=torch.ones(batch, rows, cols, 1, 2, 1)
        ),
        has_history=torch.full((batch,), fill_value=True),
    )
    return StudentOutputs(features, previous=None, previous_is_adjacent=torch.zeros(batch, dtype=torch.bool))


def boxes_of(rows: list[list[float]] | np.ndarray) -> Boxes:
    """Boxes from rows of ``x, y, z, w, l, h, yaw, vx, vy``."""
    table = np.asarray(rows, dtype=np.float64).reshape(-1, 9)
    return Boxes(
        center_m=table[:, :3],
        size_wlh_m=table[:, 3:6],
        yaw_rad=table[:, 6],
        velocity_mps=table[:, 7:],
        has_velocity=np.ones(len(table), dtype=np.bool_),
        labels=np.zeros(len(table), dtype=np.int64),
    )


def detections(boxes: Boxes, logits: list[tuple[int, float]]) -> tuple[Tensor, Tensor]:
    """Query logits and codes, one query per box, of one class each; the other classes are out of the question."""
    classes = torch.full((len(boxes), 10), -30.0)
    for query, (label, logit) in enumerate(logits):
        classes[query, label] = logit
    return classes, torch.from_numpy(encode_boxes(boxes))
