"""``fd3d-heatmap`` reproduces the numbers of FD3D's released functions."""

import numpy as np
import pytest
import torch
from golden_recipe import fill, load_golden, tensor
from train_fakes import bev_spec, boxes_of, exact_targets, grid_of, manifest_of, student_outputs

from train.distillers.base import DistillationSetting, GroundTruth
from train.distillers.fd3d_heatmap import FD3DHeatmapDistiller, FD3DHeatmapOptions
from train.heatmap import gaussian_radius_cells, object_heatmap

GOLDEN = load_golden("fd3d_losses.npz")
CASES = {
    # name: student cells, student channels, ground truth, evaluation mode, normalised teacher
    "H1": (100, 8, "A", False, False),
    "H1eval": (100, 8, "A", True, False),
    "H2": (200, 8, "A", False, False),
    "H3": (100, 8, "AB", False, False),
    "H4": (50, 8, "A", False, False),
    "H5": (100, 6, "A", False, False),
    "H6": (100, 8, "A", False, True),
}


def ground_truth(names: str) -> GroundTruth:
    return GroundTruth(tuple(boxes_of(GOLDEN[f"gt{name}"]) for name in names))


def released_names(distiller: FD3DHeatmapDistiller) -> dict[str, str]:
    """Our restore parameters by the released layer number: deconvolution, norm, (ReLU,) ..., last convolution."""
    last = len(distiller.restore.doublings)
    names = {}
    for name, _ in distiller.restore.named_parameters():
        part, *rest = name.split(".")
        names[name] = ".".join(rest) if part == "doublings" else f"{last}.{rest[0]}"
    return names


def build(case: str) -> FD3DHeatmapDistiller:
    cells, channels, _, evaluation, normalised = CASES[case]
    setting = DistillationSetting(
        grid_of(cells, cells), channels, manifest_of((bev_spec(200, 200, 8),), grid_of(200, 200))
    )
    distiller = FD3DHeatmapDistiller(FD3DHeatmapOptions(normalise_teacher=normalised), setting)
    names = released_names(distiller)
    with torch.no_grad():
        for name, values in distiller.restore.state_dict().items():
            if values.is_floating_point():
                released = names.get(name, name.removeprefix("doublings."))
                values.copy_(torch.from_numpy(fill(f"distiller.bev_restore_layers.{released}", tuple(values.shape))))
    return distiller.train(not evaluation)


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients(case: str) -> None:
    cells, channels, truth, *_ = CASES[case]
    batch = len(truth)
    student = tensor(f"fd3d.{case}.bev_student", (cells * cells, batch, channels)).requires_grad_()
    teacher = tensor(f"fd3d.{case}.bev_teacher", (batch, 40_000, 8)).reshape(batch, 200, 200, 8)
    bev = student.permute(1, 0, 2).reshape(batch, cells, cells, channels)
    distiller = build(case)
    (loss,) = distiller.losses(
        student_outputs(bev), exact_targets(teacher, grid_of(200, 200)), ground_truth(truth)
    ).values()
    loss.backward()

    assert loss.item() == pytest.approx(GOLDEN[f"{case}_loss"].item(), rel=1e-5)
    assert student.grad is not None
    assert student.grad.double().norm().item() == pytest.approx(GOLDEN[f"{case}_grad_student_norm"].item(), rel=1e-5)
    gradient = student.grad.reshape(cells, cells, batch, channels)[::5, ::5]
    np.testing.assert_allclose(gradient.numpy(), GOLDEN[f"{case}_grad_student_slice"], atol=1e-7, rtol=1e-4)
    released = released_names(distiller)
    for name, parameter in distiller.restore.named_parameters():
        expected = GOLDEN[f"{case}_gradnorm/{released[name]}"].item()
        assert parameter.grad is not None
        assert parameter.grad.double().norm().item() == pytest.approx(expected, rel=1e-5), name


@pytest.mark.parametrize("case", ["H1", "H1eval"])
def test_restored_map(case: str) -> None:
    student = tensor("fd3d.H1.bev_student", (10_000, 1, 8)).reshape(1, 100, 100, 8)
    with torch.no_grad():
        restored = build(case).restore(student.permute(0, 3, 1, 2))
    expected = GOLDEN["H1_restored_train" if case == "H1" else "H1_restored_eval"]
    np.testing.assert_allclose(restored[:, :, ::10, ::10].numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("name", ["A", "B"])
def test_heatmap(name: str) -> None:
    heatmap = object_heatmap(boxes_of(GOLDEN[f"gt{name}"]), grid_of(128, 128), min_overlap=0.1, min_radius_cells=2)
    np.testing.assert_allclose(heatmap, GOLDEN[f"heatmap{name}_128"], atol=1e-7)


def test_mask_on_the_teachers_grid() -> None:
    distiller = build("H2")
    mask = distiller.mask(ground_truth("A"), grid_of(200, 200))[0, 0].numpy()
    np.testing.assert_allclose(mask, GOLDEN["maskA_200"].astype(np.float32), atol=5e-4)  # stored as float16
    assert mask.sum() == pytest.approx(GOLDEN["maskA_200_sum"].item(), rel=1e-6)
    both = distiller.mask(ground_truth("AB"), grid_of(200, 200))
    assert both.sum().item() == pytest.approx(GOLDEN["maskAB_200_sum"].item(), rel=1e-6)


def test_radius() -> None:
    for (width_m, length_m), expected in zip(GOLDEN["radius_sizes_wl"], GOLDEN["radius_raw"], strict=True):
        assert gaussian_radius_cells(width_m / 0.8, length_m / 0.8, 0.1) == pytest.approx(expected.item(), rel=1e-5)
