"""How a sequence goes on: the published inference and training protocols, and state that only passes through."""

import json

import numpy as np
import pytest
import torch

from detectors.ego_motion import POSITION, YAW_DEG, aligned_history, continues, map_shift, relative_can_bus, state_after
from detectors.inputs import CameraBatch
from detectors.outputs import TemporalState
from schemas.bev_grid import BevGrid
from tests.golden_errors import TEMPORAL_GRID, absolute_can_bus, motion_only, temporal_errors
from tests.golden_recipe import GOLDEN

GRID = BevGrid(rows=4, cols=4, extent_m=(-4, -4, -1, 4, 4, 1))


def test_inference_protocol_is_the_official_one() -> None:
    errors = temporal_errors()
    assert len(errors) == 3
    assert max(errors.values()) < 1e-9


@pytest.mark.parametrize("number", range(4))
def test_training_queue_is_the_official_one(number: int) -> None:
    golden = json.loads((GOLDEN / "bevformer_temporal.json").read_text())
    queue = golden["training_queue_length_4"][number]
    frames = [int(name.removeprefix("t")) for name in queue["frames"]]
    state: TemporalState | None = None
    for place, frame in enumerate(frames):
        batch = motion_only(absolute_can_bus()[frame], golden["scene"][frame])
        assert continues(batch.scene_tokens, state)[0] == queue["prev_bev_exists"][place]
        # At the very start of the data set the official queue repeats frame 0, whose copies share one array there:
        # their differences come out as nonsense, and those of the frame after. Ours are the motion there was.
        shared = frames.count(0) > 1 and place < frames.count(0) + 1
        expected = np.array(queue["can_bus"][place])
        found = relative_can_bus(batch, state)[0].numpy()
        assert (np.abs(found - expected).max() < 1e-9) != shared
        state = state_after(batch, torch.zeros(1, 1, 1))


def test_a_repeated_frame_has_not_moved() -> None:
    batch = motion_only(absolute_can_bus()[0], "A")
    again = relative_can_bus(batch, state_after(batch, torch.zeros(1, 1, 1)))
    assert not again[0, POSITION].any()
    assert again[0, YAW_DEG] == 0


def test_yaw_difference_is_not_wrapped() -> None:
    before, after = _frame(yaw_deg=359.2), _frame(yaw_deg=2.1)
    turned = relative_can_bus(after, state_after(before, torch.zeros(1, 16, 1)))[0, YAW_DEG]
    assert turned.item() == pytest.approx(-357.1)


def test_positions_are_subtracted_in_double_precision() -> None:
    before, after = _frame(position_m=(123456.001, 0, 0)), _frame(position_m=(123456.002, 0, 0))
    moved = relative_can_bus(after, state_after(before, torch.zeros(1, 16, 1)))[0, 0]
    assert moved.item() == pytest.approx(0.001, rel=1e-6)


@pytest.mark.parametrize("yaw_deg", [0.0, 30.0, 135.0, 270.0])
def test_driving_straight_on_shifts_the_map_forward(yaw_deg: float) -> None:
    yaw_rad = np.deg2rad(yaw_deg)
    can_bus = torch.zeros(1, 18, dtype=torch.float64)
    can_bus[0, :2] = torch.tensor([3 * np.cos(yaw_rad), 3 * np.sin(yaw_rad)])
    can_bus[0, 16] = yaw_rad
    expected = torch.tensor([[0.0, 3 / 102.4]])
    torch.testing.assert_close(map_shift(can_bus, TEMPORAL_GRID), expected, atol=1e-7, rtol=0)


def test_no_previous_state_means_no_history() -> None:
    batch = _frame(position_m=(5, 6, 7), yaw_deg=90)
    assert aligned_history(batch, None, GRID, None) is None
    relative = relative_can_bus(batch, None)
    assert not relative[0, POSITION].any()
    assert relative[0, YAW_DEG] == 0
    assert relative[0, 16] == batch.can_bus[0, 16]


def test_another_scene_starts_afresh_and_its_neighbour_goes_on() -> None:
    state = TemporalState(
        bev=torch.ones(2, 16, 1),
        position_m=torch.zeros(2, 3, dtype=torch.float64),
        yaw_deg=torch.zeros(2, dtype=torch.float64),
        scene_tokens=("a", "b"),
    )
    first, second = _frame(position_m=(1, 0, 0)), _frame(position_m=(1, 0, 0))
    batch = CameraBatch(
        images=torch.cat([first.images, second.images]),
        image_from_lidar=torch.cat([first.image_from_lidar, second.image_from_lidar]),
        can_bus=torch.cat([first.can_bus, second.can_bus]),
        scene_tokens=("a", "c"),
    )
    assert relative_can_bus(batch, state)[:, 0].tolist() == [1, 0]
    history = aligned_history(batch, state, GRID, None)
    assert history is not None
    assert history.present.tolist() == [True, False]
    assert aligned_history(_with_tokens(batch, ("x", "y")), state, GRID, None) is None


def test_inputs_are_left_alone() -> None:
    batch = _frame(position_m=(5, 6, 7), yaw_deg=90)
    state = state_after(_frame(yaw_deg=45), torch.rand(1, 16, 2))
    kept = batch.can_bus.clone(), state.bev.clone(), state.position_m.clone()
    relative_can_bus(batch, state)
    aligned_history(batch, state, GRID, None)
    assert torch.equal(batch.can_bus, kept[0])
    assert torch.equal(state.bev, kept[1])
    assert torch.equal(state.position_m, kept[2])


def test_the_state_carries_no_gradient() -> None:
    state = state_after(_frame(), torch.rand(1, 16, 2, requires_grad=True))
    assert not state.bev.requires_grad


def test_state_and_batch_move_to_a_device() -> None:
    batch = _frame(yaw_deg=3).to(torch.device("meta"))
    state = state_after(_frame(), torch.rand(1, 16, 2)).to(torch.device("meta"))
    tensors = (batch.images, batch.image_from_lidar, batch.can_bus, state.bev, state.position_m, state.yaw_deg)
    assert all(tensor.is_meta for tensor in tensors)
    assert batch.scene_tokens == state.scene_tokens == ("scene",)


def _frame(position_m: tuple[float, ...] = (0, 0, 0), yaw_deg: float = 0) -> CameraBatch:
    can_bus = [*map(float, position_m), *[0.0] * 13, float(np.deg2rad(yaw_deg)), float(yaw_deg)]
    return motion_only(can_bus, "scene")


def _with_tokens(batch: CameraBatch, tokens: tuple[str, ...]) -> CameraBatch:
    return CameraBatch(batch.images, batch.image_from_lidar, batch.can_bus, tokens)
