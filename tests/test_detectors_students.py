"""FD3D's own students: their size, their images, and image levels that lie exactly on Base's."""

import pytest
import torch

from detectors.catalogue import DETECTORS, build
from detectors.image_features import image_features

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def level_sizes(name: str) -> list[tuple[int, ...]]:
    """Shapes of the image levels of a 1600×900 camera, without computing a number."""
    config = DETECTORS[name]()
    backbone = config.backbone.model_copy(update={"deformable_stages": ()})  # shapes stay; autocast knows no meta
    config = config.model_copy(update={"backbone": backbone})
    with torch.device("meta"), torch.no_grad():
        detector = build(config).eval()
        images = torch.empty(1, 3, *config.preprocessing.padded_hw(900, 1600))
        return [tuple(level.shape) for level in image_features(detector.img_backbone, detector.img_neck, images)]


@pytest.mark.parametrize("name", ["fd3d-small", "fd3d-tiny"])
def test_half_the_resolution_gives_the_image_levels_of_base(name: str) -> None:
    assert DETECTORS[name]().preprocessing.padded_hw(900, 1600) == (464, 800)
    assert (
        level_sizes(name)
        == level_sizes("bevformer-base")
        == [
            (1, 256, 116, 200),
            (1, 256, 58, 100),
            (1, 256, 29, 50),
            (1, 256, 15, 25),
        ]
    )


@pytest.mark.parametrize(("name", "millions"), [("fd3d-small", 58.92), ("fd3d-tiny", 38.13)])
def test_their_docstrings_state_their_sizes(name: str, millions: float) -> None:
    with torch.device("meta"):
        entries = build(DETECTORS[name]()).state_dict().items()
    assert round(sum(entry.numel() for key, entry in entries if not key.endswith(STATISTICS)) / 1e6, 2) == millions
    assert f"{millions} M parameters" in " ".join((DETECTORS[name].__doc__ or "").split())


def test_they_are_not_bevformers_own() -> None:
    for theirs in ("small", "tiny"):
        fd3d, bevformer = DETECTORS[f"fd3d-{theirs}"](), DETECTORS[f"bevformer-{theirs}"]()
        assert fd3d.grid.shape == (100, 100) != bevformer.grid.shape
        assert fd3d.encoder.rotate_center is None
        assert fd3d.grid.extent_m == bevformer.grid.extent_m == DETECTORS["bevformer-base"]().grid.extent_m
