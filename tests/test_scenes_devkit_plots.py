"""The devkit's plots: all of them, as files, without touching the caller's figures."""

import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from made_nuscenes import make_nuscenes

from scenes.evaluation import as_detections, evaluate
from scenes.scene_tables import SceneTables
from scenes.tables import load_tables
from schemas.boxes import CLASS_NAMES, empty_boxes


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> SceneTables:
    return load_tables(
        make_nuscenes(("scene-0003", "scene-0001")).write(tmp_path_factory.mktemp("made")), "v1.0-trainval"
    )


def test_every_plot_of_a_perfect_score_is_drawn_beside_open_figures(tables: SceneTables, tmp_path: Path) -> None:
    """Errors of zero give limits of zero, of which matplotlib warns."""
    frames = tables.frames("scene-0003")
    detections = {frame.sample_token: as_detections(frame.boxes) for frame in frames if frame.boxes is not None}
    mine, axes = plt.subplots()
    before = plt.get_backend()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(detections, tables, "val", tmp_path, plots=tmp_path / "plots")
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {
        "summary.png",
        *(f"{name}_{kind}.png" for name in CLASS_NAMES for kind in ("pr", "tp")),
        *(f"dist_pr_{distance}.png" for distance in (0.5, 1.0, 2.0, 4.0)),
    }
    assert plt.get_backend() == before
    assert plt.get_fignums() == [mine.number]
    assert axes.get_title() == ""
    assert len(mine.axes) == 1
    plt.close(mine)
    pixels = plt.imread(tmp_path / "plots" / "car_pr.png")
    assert np.ptp(pixels[..., 0]) > 0.5


def test_a_score_of_zero_has_no_plots(tables: SceneTables, tmp_path: Path) -> None:
    detections = {token: empty_boxes(scored=True) for token in tables.sample_tokens("scene-0003")}
    assert evaluate(detections, tables, "val", tmp_path, plots=tmp_path / "plots").nds == 0.0
    assert not (tmp_path / "plots").exists()
