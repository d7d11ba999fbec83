"""The previous BEV beneath the present one: read where the ground was, and fused so that at first nothing changes."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from torch.nn import functional

from detectors.catalogue import demo_student
from detectors.config import BEVFormerConfig
from detectors.ego_motion import BevHistory, aligned_history, read_beneath, state_after
from detectors.history_fusion import HistoryFusion
from detectors.inputs import batch_of
from scenes.images import load_inputs
from scenes.tables import load_tables
from schemas.bev_grid import BevGrid
from schemas.frame_index import lidar_motion

GRID = BevGrid(rows=40, cols=40, extent_m=(-32, -32, -2.5, 32, 32, 1.5))


def config() -> BEVFormerConfig:
    return demo_student().model_copy(update={"grid": GRID})


def history_of(unturned: torch.Tensor, turned_deg: float = 0.0, shift: tuple[float, float] = (0.0, 0.0)) -> BevHistory:
    return BevHistory(
        bev=unturned,
        shift=torch.tensor([shift]),
        present=torch.tensor([True]),
        unturned=unturned,
        turned_deg=torch.tensor([turned_deg], dtype=torch.float64),
    )


def test_the_ground_is_read_where_the_poses_say(tiny_world: Path, tmp_path: Path) -> None:
    tables = load_tables(tiny_world, "v1.0-trainval", tmp_path)
    x = (torch.arange(40) + 0.5) * 1.6 - 32
    own_place_m = torch.stack(torch.meshgrid(x, x, indexing="xy"), dim=-1).reshape(1, 1600, 2)
    turned = 0.0
    for scene in tables.scene_names("train"):
        frames = tables.frames(scene)
        for before, now in pairwise(frames):
            first, second = (
                batch_of([load_inputs(frame, tables.data_root, config().preprocessing)]) for frame in (before, now)
            )
            history = aligned_history(second, state_after(first, own_place_m), GRID, None)
            assert history is not None
            centers = torch.cat([own_place_m[0].double(), torch.zeros(1600, 1), torch.ones(1600, 1)], dim=1)
            expected = (centers @ torch.tensor(lidar_motion(before, now)).T)[:, :2].reshape(40, 40, 2)
            found = read_beneath(history, GRID)[0].permute(1, 2, 0)
            # Away from the edge, where what lay outside is read as zero; the car also pitches and rolls a little.
            assert (found - expected)[8:32, 8:32].norm(dim=-1).max() < 0.1
            turned = max(turned, abs(float(history.turned_deg)))
    assert turned > 0.5


def test_samples_without_history_read_zeros() -> None:
    unturned = torch.randn(2, 1600, 64)
    history = BevHistory(
        bev=unturned,
        shift=torch.rand(2, 2) * 0.1,
        present=torch.tensor([True, False]),
        unturned=unturned,
        turned_deg=torch.tensor([3.0, 3.0], dtype=torch.float64),
    )
    read = read_beneath(history, GRID)
    assert read[0].any()
    assert not read[1].any()


def test_without_motion_the_map_itself_is_read() -> None:
    unturned = torch.randn(1, 1600, 64)
    read = read_beneath(history_of(unturned), GRID)
    torch.testing.assert_close(read.flatten(2).transpose(1, 2), unturned, atol=1e-5, rtol=1e-5)


def test_at_first_nothing_changes_but_the_norm() -> None:
    fusion, bev = HistoryFusion(config()), torch.randn(1, 1600, 64)
    fused = fusion(bev, history_of(torch.randn(1, 1600, 64)))
    torch.testing.assert_close(fused, functional.layer_norm(bev, (64,)))


def test_a_trained_block_sees_the_previous_map_and_every_parameter_learns() -> None:
    fusion, bev = HistoryFusion(config()), torch.randn(1, 1600, 64)
    torch.nn.init.ones_(fusion.gain.weight)
    history = history_of(torch.randn(1, 1600, 64), turned_deg=4.0, shift=(0.01, 0.05))
    fused = fusion(bev, history)
    fused.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in fusion.parameters())
    other = fusion(bev, replace(history, unturned=torch.randn(1, 1600, 64)))
    assert not torch.allclose(fused, other)
    assert not torch.allclose(fused, fusion(bev, None))
