"""The mask along objects' ways: past annotations under the current frame, and what ``fd3d-heatmap`` makes of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from train_fakes import bev_spec, boxes_of, grid_of, manifest_of
from train_world import CPU, SCENES, fill_cache, tiny_detector, tiny_tables

from schemas.boxes import Boxes
from schemas.errors import RecipeError
from train.clips import ClipOptions
from train.distiller_catalogue import DistillationOptions
from train.distillers.base import DistillationSetting, GroundTruth
from train.distillers.fd3d_heatmap import FD3DHeatmapDistiller, FD3DHeatmapOptions
from train.heatmap import object_heatmap
from train.loop import train
from train.options import TrainOptions
from train.past_boxes import past_boxes
from train.run import TrainingRun, check_run

GRID = grid_of(64, 64)
ROWS = [[10, 5, -1, 2, 4.6, 1.7, 0.3, 3, -1], [-30, -12, -1, 2.9, 12, 3.8, -3.1, 0, 3]]


def test_past_boxes_are_nearest_first_and_stay_in_the_world(tmp_path: Path) -> None:
    frames = tiny_tables(tmp_path).frames(SCENES[0])[:3]
    found = past_boxes(frames)
    assert len(found) == 2
    for boxes, frame in zip(found, (frames[1], frames[0]), strict=True):
        assert frame.boxes is not None
        assert len(boxes) == len(frame.boxes) > 0
        np.testing.assert_allclose(
            in_world(boxes, frames[-1].global_from_lidar), in_world(frame.boxes, frame.global_from_lidar), atol=1e-6
        )
        assert (boxes.size_wlh_m == frame.boxes.size_wlh_m).all()
    assert not np.allclose(found[0].center_m, frames[1].boxes.center_m, atol=0.1)  # the car has moved
    assert past_boxes(frames[:1]) == ()


def in_world(boxes: Boxes, global_from_lidar: np.ndarray) -> np.ndarray:
    return boxes.center_m @ global_from_lidar[:3, :3].T + global_from_lidar[:3, 3]


def moved(metres: float) -> Boxes:
    return boxes_of([[row[0] + metres, *row[1:]] for row in ROWS])


def mask(trajectory_frames: int, truth: GroundTruth) -> np.ndarray:
    setting = DistillationSetting(GRID, 4, manifest_of((bev_spec(64, 64, 4),), GRID))
    options = FD3DHeatmapOptions(mask_cells=64, trajectory_frames=trajectory_frames)
    drawn: np.ndarray = FD3DHeatmapDistiller(options, setting).mask(truth, GRID)[:, 0].numpy()
    return drawn


def test_the_mask_is_the_union_over_the_frames_asked_for() -> None:
    truth = GroundTruth((moved(0), moved(0)), past=((moved(-5), moved(-10)), ()))
    drawn = [object_heatmap(moved(metres), GRID, 0.1, 2) for metres in (0, -5, -10)]
    for frames in range(4):
        expected = np.maximum.reduce(drawn[: frames + 1])
        np.testing.assert_array_equal(mask(frames, truth)[0], expected)
        np.testing.assert_array_equal(mask(frames, truth)[1], drawn[0])


def test_a_batch_without_history_has_the_mask_of_its_frames() -> None:
    truth = GroundTruth((moved(0),))
    np.testing.assert_array_equal(mask(3, truth), mask(0, truth))


def run_of(folder: Path, trajectory_frames: int) -> TrainingRun:
    asked = FD3DHeatmapOptions(trajectory_frames=trajectory_frames)
    tables = tiny_tables(folder)
    return TrainingRun(
        detector=tiny_detector(),
        tables=tables,
        scene_names=SCENES,
        cache=fill_cache(folder / "cache", tables),
        options=TrainOptions(
            steps=2,
            batch_size=2,
            clips=ClipOptions(length=3),
            distillation=DistillationOptions(names=("fd3d-heatmap",), fd3d_heatmap=asked),
        ),
        out=folder / "out",
        device=CPU,
    )


def test_a_student_is_trained_along_the_ways(tmp_path: Path) -> None:
    assert train(run_of(tmp_path, trajectory_frames=2), lambda _report: None).finished


def test_more_frames_than_a_clip_has_are_refused(tmp_path: Path) -> None:
    run = run_of(tmp_path, trajectory_frames=3)
    with pytest.raises(
        RecipeError, match=r"look 3 frames back.*clips have 2 before.*clips.length=4.*fd3d_heatmap.trajectory_frames=2"
    ):
        train(run, lambda _report: None)
    assert not run.out.exists()
    check_run(replace(run, options=run.options.model_copy(update={"distillation": DistillationOptions()})))
