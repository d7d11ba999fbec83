"""A teacher that costs nothing and decodes a box out of every BEV cell, and what measures of fidelity are tried on."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.teacher_stage.live_frames import LiveFrame
from pipeline.teacher_stage.quantise import quantise
from pipeline.teacher_stage.teacher import Teacher
from schemas.bev_grid import BevGrid
from schemas.boxes import Boxes
from schemas.features import Encoding, FeatureSpec, Tier
from schemas.frames import CameraInputs, Frame
from schemas.manifest import DatasetIdentity, Manifest, TeacherIdentity
from schemas.preprocessing import Preprocessing

GRID = BevGrid(rows=8, cols=8, extent_m=(-8.0, -8.0, -5.0, 8.0, 8.0, 3.0))
PREPROCESSING = Preprocessing(color_order="rgb", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
IDENTITY = TeacherIdentity(name="fake", architecture="{}", weights_sha256="ab" * 32, untrained=False)
BEV = FeatureSpec(
    name="bev",
    dims=("y", "x", "channel"),
    shape=(8, 8, 4),
    encoding="affine",
    scale_dims=("channel",),
    description="Channels 0 and 1: where the box of a cell lies in it, in metres; channel 2: its logit.",
)
QUERIES = FeatureSpec(
    name="queries", dims=("query", "code"), shape=(5, 3), encoding="float16", description="Some objects."
)


class CellBoxes:
    """A teacher whose decoder reads one box out of every BEV cell, so that each change of the map shows in a box."""

    preprocessing, grid, class_names = PREPROCESSING, GRID, ("car", "bus")

    def __init__(self) -> None:
        self.decoded: list[tuple[int, ...]] = []

    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        return BEV, QUERIES

    def features(self, inputs: CameraInputs, previous: Any) -> tuple[Mapping[str, Tensor], Any]:  # noqa: ARG002
        return frame_features(0), None

    def state_dict(self) -> Mapping[str, Tensor]:
        return {}

    def boxes_from_bev(self, bev: Tensor) -> Boxes:
        assert torch.is_inference_mode_enabled()
        self.decoded.append(tuple(bev.shape))
        numbers = bev.double().reshape(64, 4).numpy()
        cells = np.stack(np.meshgrid(np.arange(8), np.arange(8)), axis=-1).reshape(64, 2) * 10.0
        return boxes_at(np.pad(cells + numbers[:, :2], ((0, 0), (0, 1))), 1 / (1 + np.exp(-numbers[:, 2])))


class NoDecoder:
    """The same without a decoder."""

    preprocessing, grid, class_names = PREPROCESSING, GRID, ("car", "bus")
    feature_specs, features, state_dict = CellBoxes.feature_specs, CellBoxes.features, CellBoxes.state_dict


def boxes_at(center_m: Any, scores: Any, labels: Any = 0) -> Boxes:
    count = len(center_m)
    return Boxes(
        center_m=np.asarray(center_m, dtype=np.float64).reshape(count, 3),
        size_wlh_m=np.ones((count, 3)),
        yaw_rad=np.zeros(count),
        velocity_mps=np.zeros((count, 2)),
        has_velocity=np.ones(count, dtype=np.bool_),
        labels=np.broadcast_to(np.asarray(labels, dtype=np.int64), (count,)).copy(),
        scores=np.asarray(scores, dtype=np.float64),
    )


def teacher_of(network: Any) -> Teacher:
    return Teacher(network, IDENTITY, "float32", "made up")


def manifest_of(*specs: FeatureSpec, tier: Tier = "int8", grid: BevGrid = GRID) -> Manifest:
    return Manifest(
        teacher=IDENTITY,
        preprocessing=PREPROCESSING,
        precision="float32",
        dataset=DatasetIdentity(name="made", version="v1.0-mini", split="mini_train", tables_sha256="1" * 64),
        features=specs,
        tier=tier,
        class_names=("car", "bus"),
        grid=grid,
        program_version="0",
        device="cpu",
    )


def frame_features(seed: int, logit: float = 0.0) -> dict[str, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    bev = torch.randn(8, 8, 4, generator=stream)
    bev[..., 2] += logit
    bev[..., 3] = 5 + 0.001 * bev[..., 3]  # a mean thousands of times the spread
    return {"bev": bev, "queries": torch.randn(5, 3, generator=stream)}


def live_frame(features: Mapping[str, Tensor], manifest: Manifest) -> LiveFrame:
    stored = quantise(manifest.features, features, manifest.tier)
    return LiveFrame(A_FRAME, features, stored)


A_FRAME = Frame(
    scene_name="scene-0001",
    scene_token="s",
    sample_token="t",
    step=0,
    timestamp_us=0,
    camera_paths=("",) * 6,
    camera_size_wh=np.zeros((6, 2), dtype=np.int64),
    intrinsics=np.zeros((6, 3, 3)),
    lidar_from_camera=np.zeros((6, 4, 4)),
    global_from_lidar=np.eye(4),
    global_from_ego=np.eye(4),
    can_bus=np.zeros(18),
    has_can_bus=False,
    boxes=None,
    lidar_path="",
)


def spec_of(encoding: Encoding, shape: tuple[int, ...], scale_dims: tuple[str, ...] = ()) -> FeatureSpec:
    dims = ("y", "x", "channel")[-len(shape) :]
    return FeatureSpec(name="f", dims=dims, shape=shape, encoding=encoding, scale_dims=scale_dims, description="F.")
