"""A batch of unequal histories remembers what each sample would remember alone."""

from pathlib import Path

import pytest
import torch
from train_world import SCENES, tiny_config, tiny_detector, tiny_tables

from detectors.inputs import CameraBatch, batch_of
from scenes.images import load_inputs
from scenes.scene_tables import SceneTables
from train.batches import HistoryStep
from train.history import NO_SCENE, encode_history, evaluating, rearranged


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> SceneTables:
    return tiny_tables(tmp_path_factory.getbasetemp() / "train-world")


def cameras(tables: SceneTables, *frames: tuple[str, int]) -> CameraBatch:
    preprocessing = tiny_config().preprocessing
    return batch_of(
        [load_inputs(tables.frames(scene)[step], tables.data_root, preprocessing) for scene, step in frames]
    )


def test_samples_do_not_disturb_each_other(tables: SceneTables) -> None:
    detector = tiny_detector().train()
    first, second, third = SCENES
    history = [
        HistoryStep(cameras(tables, (second, 0)), (1,)),
        HistoryStep(cameras(tables, (first, 0), (second, 1)), (0, 1)),
    ]
    state = encode_history(detector, history, batch_size=3)
    assert state is not None
    assert state.scene_tokens == (f"{first} token", f"{second} token", NO_SCENE)
    alone = encode_history(detector, [HistoryStep(cameras(tables, (second, step)), (0,)) for step in (0, 1)], 1)
    assert alone is not None
    torch.testing.assert_close(state.bev[1:2], alone.bev, atol=1e-5, rtol=1e-5)
    fresh = encode_history(detector, [HistoryStep(cameras(tables, (first, 0)), (0,))], 1)
    assert fresh is not None
    torch.testing.assert_close(state.bev[:1], fresh.bev, atol=1e-5, rtol=1e-5)
    assert not state.bev.requires_grad

    current = cameras(tables, (first, 1), (second, 2), (third, 0))
    with evaluating(detector):
        together, _ = detector.features(current, state)
        blank, _ = detector.features(cameras(tables, (third, 0)), None)
    torch.testing.assert_close(together.bev[2:], blank.bev, atol=1e-5, rtol=1e-5)


def test_no_history_is_no_memory() -> None:
    assert encode_history(tiny_detector(), [], batch_size=2) is None


def test_evaluation_mode_lasts_for_the_block_and_every_mode_comes_back() -> None:
    detector = tiny_detector().train()
    detector.img_neck.eval()
    before = [module.training for module in detector.modules()]
    with evaluating(detector):
        assert not any(module.training for module in detector.modules())
    assert [module.training for module in detector.modules()] == before


def test_rearranged_rows(tables: SceneTables, tmp_path: Path) -> None:
    detector = tiny_detector()
    with torch.no_grad():
        state = detector.encode(cameras(tables, (SCENES[0], 1), (SCENES[1], 2)), None)
    turned = rearranged(state, [1, None, 0])
    torch.testing.assert_close(turned.bev[[0, 2]], state.bev[[1, 0]])
    torch.testing.assert_close(turned.position_m[[0, 2]], state.position_m[[1, 0]])
    torch.testing.assert_close(turned.yaw_deg[[0, 2]], state.yaw_deg[[1, 0]])
    assert turned.scene_tokens == (state.scene_tokens[1], NO_SCENE, state.scene_tokens[0])
