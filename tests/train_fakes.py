"""Small stand-ins for the training tests: a manifest, targets and student outputs of any size."""

import numpy as np
import torch
from torch import Tensor

from detectors.outputs import DetectorFeatures, QueryOutputs, TemporalAttention
from schemas.bev_grid import BevGrid
from schemas.boxes import Boxes
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
        class_names=("car",),
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
