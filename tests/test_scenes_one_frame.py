"""One real nuScenes keyframe, when it is at hand: calibration, boxes and images of the real thing."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from nuscenes.nuscenes import NuScenes
from nuscenes.utils.geometry_utils import BoxVisibility

from scenes.box_frames import to_global
from scenes.evaluation import as_detections, evaluate
from scenes.geometry import box_edges_in_image, project_points
from scenes.images import load_inputs
from scenes.scene_tables import SceneTables
from scenes.tables import load_tables
from schemas.bev_grid import BevGrid
from schemas.frames import CAMERAS, Frame
from schemas.preprocessing import Preprocessing

VERSION, SCENE = "v1.0-mini", "scene-0061"
EXTENT_M = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
CAFFE = Preprocessing(color_order="bgr", mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0))
TORCH = Preprocessing(color_order="rgb", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), scale=0.5)

SIZES = [
    (CAFFE, 200, (928, 1600), (6219, 7560, 7532, 9514, 7092, 7197)),
    (CAFFE.model_copy(update={"scale": 0.8}), 150, (736, 1280), (3497, 4250, 4237, 5350, 3989, 4053)),
    (TORCH, 50, (480, 800), (388, 473, 470, 589, 444, 448)),
]
"""Preprocessing, cells along a side, network input, and visible BEV queries per camera in the published encoder."""


@pytest.fixture(scope="module")
def tables(one_frame: Path) -> SceneTables:
    return load_tables(one_frame, VERSION)


@pytest.fixture
def frame(tables: SceneTables) -> Frame:
    return tables.frames(SCENE)[0]


def reference_points_m(grid: BevGrid) -> NDArray[np.float64]:
    """(cell, 4 heights, 3): cell centres, and the published heights from half a metre above the bottom."""
    x_min, y_min, z_min, *_ = grid.extent_m
    (cell_x, cell_y), size_z = grid.cell_m, grid.size_m[2]
    x, y = np.meshgrid(x_min + (np.arange(grid.cols) + 0.5) * cell_x, y_min + (np.arange(grid.rows) + 0.5) * cell_y)
    heights = z_min + 0.5 + np.arange(4) * (size_z - 1) / 3
    points = np.stack(np.broadcast_arrays(x[..., None], y[..., None], heights), axis=-1)
    return points.reshape(-1, 4, 3)


@pytest.mark.parametrize(("preprocessing", "cells", "input_hw", "expected"), SIZES)
def test_every_camera_sees_the_published_number_of_bev_queries(
    one_frame: Path,
    frame: Frame,
    preprocessing: Preprocessing,
    cells: int,
    input_hw: tuple[int, int],
    expected: tuple[int, ...],
) -> None:
    inputs = load_inputs(frame, one_frame, preprocessing)
    assert inputs.images.shape == (6, 3, *input_hw)
    points_m = reference_points_m(BevGrid(rows=cells, cols=cells, extent_m=EXTENT_M))
    visible = []
    for image_from_lidar in inputs.image_from_lidar:
        scaled = points_m @ image_from_lidar[:3, :3].T + image_from_lidar[:3, 3]
        depth_m = scaled[..., 2]
        u = scaled[..., 0] / np.maximum(depth_m, 1e-5) / input_hw[1]
        v = scaled[..., 1] / np.maximum(depth_m, 1e-5) / input_hw[0]
        visible.append(int(((depth_m > 1e-5) & (u > 0) & (u < 1) & (v > 0) & (v < 1)).any(axis=1).sum()))
    assert tuple(visible) == expected


def test_box_centres_fall_where_the_devkit_draws_them(one_frame: Path, frame: Frame) -> None:
    devkit = NuScenes(version=VERSION, dataroot=str(one_frame), verbose=False)
    assert frame.boxes is not None
    annotations = [row for row in devkit.sample_annotation if row["num_lidar_pts"] + row["num_radar_pts"] > 0]
    tokens = sorted(row["token"] for row in annotations if "pushable" not in row["category_name"])
    assert len(tokens) == len(frame.boxes)
    sample = devkit.get("sample", frame.sample_token)
    for camera, image_from_lidar in zip(CAMERAS, frame.image_from_lidar, strict=True):
        _, boxes, intrinsic = devkit.get_sample_data(sample["data"][camera], box_vis_level=BoxVisibility.ANY)
        drawn = {box.token: intrinsic @ box.center for box in boxes}
        chosen = [number for number, token in enumerate(tokens) if token in drawn]
        assert chosen
        expected = np.array([drawn[tokens[number]] for number in chosen])
        ours = project_points(frame.boxes.center_m[chosen], image_from_lidar)
        np.testing.assert_allclose(ours[:, :2], expected[:, :2] / expected[:, 2:], rtol=0, atol=1e-6)
        np.testing.assert_allclose(ours[:, 2], expected[:, 2], rtol=0, atol=1e-9)


def test_every_camera_shows_boxes(frame: Frame) -> None:
    assert frame.boxes is not None
    for image_from_lidar in frame.image_from_lidar:
        edges, _ = box_edges_in_image(frame.boxes, image_from_lidar)
        inside = ((edges > 0) & (edges < (1600, 900))).all(axis=(1, 2))
        assert inside.sum() >= 12


def test_the_annotations_as_detections_match_every_class_in_range(tables: SceneTables, tmp_path: Path) -> None:
    """Five of ten classes are in range; with no velocity known, attributes and velocities are guesses."""
    frame = tables.frames(SCENE)[0]
    assert frame.boxes is not None
    score = evaluate({frame.sample_token: as_detections(frame.boxes)}, tables, "mini_train", tmp_path)
    found = {name for name, precision in score.class_ap.items() if precision > 0.999}
    assert found == {"car", "truck", "barrier", "pedestrian", "traffic_cone"}
    assert score.mean_ap == pytest.approx(0.5, abs=1e-9)
    assert score.tp_errors["mATE"] == pytest.approx(0.5, abs=1e-9)
    assert score.tp_errors["mASE"] == pytest.approx(0.5, abs=1e-9)
    assert score.tp_errors["mAOE"] == pytest.approx(5 / 9, abs=1e-9)


def test_the_submission_of_the_annotations_restores_the_table(one_frame: Path, tables: SceneTables) -> None:
    frame = tables.frames(SCENE)[0]
    assert frame.boxes is not None
    rows = json.loads((one_frame / VERSION / "sample_annotation.json").read_text())
    rows = sorted(
        (row for row in rows if row["num_lidar_pts"] + row["num_radar_pts"] > 0), key=lambda row: row["token"]
    )
    boxes = to_global(frame.boxes, frame.global_from_lidar)
    positions = np.array([row["translation"] for row in rows])
    for centre, rotation in zip(boxes.translation_m, boxes.rotation_wxyz, strict=True):
        row = rows[int(np.linalg.norm(positions - centre, axis=1).argmin())]
        np.testing.assert_allclose(centre, row["translation"], atol=1e-9)
        assert abs(np.dot(rotation, row["rotation"])) == pytest.approx(1.0, abs=1e-12)
