"""The catalogue's detectors: published names, shapes, sizes and image sizes; and configurations that cannot be."""

import pytest
import torch
from pydantic import ValidationError

from detectors.catalogue import DETECTORS, build
from detectors.config import (
    BEVFormerConfig,
    EncoderConfig,
    FPNConfig,
    LossConfig,
    ResNetConfig,
    SmallBackboneConfig,
)
from schemas.boxes import CLASS_NAMES
from tests.golden_recipe import golden_state_dict_shapes

PUBLISHED = {"base": 69.03, "small": 59.46, "tiny": 33.52}


@pytest.mark.parametrize("model", PUBLISHED)
def test_published_detectors_have_exactly_the_official_entries(model: str) -> None:
    with torch.device("meta"):
        detector = build(DETECTORS[f"bevformer-{model}"]())
    ours = {name: tuple(entry.shape) for name, entry in detector.state_dict().items()}
    assert ours == golden_state_dict_shapes(model)


@pytest.mark.parametrize(("model", "millions"), PUBLISHED.items())
def test_published_detectors_have_the_published_size(model: str, millions: float) -> None:
    with torch.device("meta"):
        detector = build(DETECTORS[f"bevformer-{model}"]())
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    count = sum(entry.numel() for name, entry in detector.state_dict().items() if not name.endswith(statistics))
    assert round(count / 1e6, 2) == millions


@pytest.mark.parametrize(
    ("name", "original", "network"),
    [
        ("bevformer-base", (900, 1600), (928, 1600)),
        ("bevformer-small", (900, 1600), (736, 1280)),
        ("bevformer-tiny", (900, 1600), (480, 800)),
        ("demo-teacher", (128, 224), (128, 224)),
        ("demo-student", (128, 224), (64, 112)),
    ],
)
def test_images_reach_the_network_at_the_stated_size(
    name: str, original: tuple[int, int], network: tuple[int, int]
) -> None:
    assert DETECTORS[name]().preprocessing.padded_hw(*original) == network


@pytest.mark.parametrize("name", DETECTORS)
def test_a_configuration_survives_json(name: str) -> None:
    config = DETECTORS[name]()
    assert BEVFormerConfig.model_validate_json(config.model_dump_json()) == config
    assert config.class_names == CLASS_NAMES


def test_published_weights_keep_the_rotation_and_shift_they_were_trained_with() -> None:
    for model in PUBLISHED:
        encoder = DETECTORS[f"bevformer-{model}"]().encoder
        assert encoder.rotate_center == (100, 100)
        assert encoder.shift_both_references
    assert DETECTORS["demo-teacher"]().encoder.rotate_center is None


def test_demo_detectors_share_the_map_and_stay_small() -> None:
    teacher, student = DETECTORS["demo-teacher"](), DETECTORS["demo-student"]()
    assert teacher.grid == student.grid
    assert teacher.embed_dims == student.embed_dims
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in build(config).parameters()) for config in (teacher, student)]
    assert sizes[1] < sizes[0] < 2e6  # 8 MB in float32


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        (ResNetConfig, {"out_stages": (4, 3)}, "ascending stage numbers from 1 to 4"),
        (ResNetConfig, {"out_stages": ()}, "ascending stage numbers from 1 to 4"),
        (ResNetConfig, {"deformable_stages": (5,)}, "deformable_stages must be ascending"),
        (ResNetConfig, {"depth": 34}, "50 or 101"),
        (SmallBackboneConfig, {"channels": (16, 20, 64, 128)}, "channels in multiples of 8"),
        (FPNConfig, {"in_channels": (1, 2), "levels": 1}, "1 levels cannot come from 2 maps"),
        (EncoderConfig, {"spatial_points": 6}, "must be a multiple of heights"),
        (LossConfig, {"code_weights": (1.0,)}, "code_weights needs 10 numbers, got 1"),
    ],
)
def test_impossible_parts_are_refused(part: type, values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        part(**values)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"neck": FPNConfig(in_channels=(2048,))}, "the backbone gives"),
        ({"neck": FPNConfig(out_channels=128)}, "neck.out_channels is 128, embed_dims is 256"),
        ({"encoder": EncoderConfig(heads=7)}, "multiple of 2 and of the heads"),
        ({"class_names": ("car", "car")}, "distinct"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changed: dict[str, object], message: str) -> None:
    values = {name: getattr(DETECTORS["bevformer-base"](), name) for name in BEVFormerConfig.model_fields}
    with pytest.raises(ValidationError, match=message):
        BEVFormerConfig(**values | changed)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        DETECTORS["bevformer-tiny"]().embed_dims = 128
