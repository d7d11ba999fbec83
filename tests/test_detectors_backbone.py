"""Backbones, deformable convolution and neck against golden tensors, a slow reference, and their own promises."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from detectors.config import FPNConfig, ResNetConfig, SmallBackboneConfig
from detectors.fpn import FPN
from detectors.image_features import image_features
from detectors.resnet import Bottleneck, FrozenBatchNorm, ResNet
from detectors.small_backbone import SmallBackbone
from tests.golden_backbone import GOLDEN_BACKBONE, backbone_errors, published_backbone
from tests.golden_recipe import fill_module, golden_state_dict_shapes

REPOSITORY = Path(__file__).resolve().parent.parent
PLAIN_RESNET = ResNetConfig(depth=50, style="pytorch", deformable_stages=())
DEFORMABLE_RESNET = ResNetConfig(depth=50, deformable_stages=(4,))


def images(count: int = 2, height: int = 64, width: int = 96) -> Tensor:
    return torch.randn(count, 3, height, width)


# ---------------------------------------------------------------------------------------------- golden tensors


@pytest.mark.parametrize("model", ["tiny", "base", "small"])
def test_backbone_and_neck_reproduce_the_official_tensors(model: str) -> None:
    errors = backbone_errors(model)
    assert len(errors) == sum(name.startswith(model) for name in GOLDEN_BACKBONE)
    assert max(errors.values()) < 1e-4, errors


@pytest.mark.parametrize("model", ["tiny", "base", "small"])
def test_entries_have_the_published_names_and_order(model: str) -> None:
    with torch.device("meta"):
        backbone, neck = published_backbone(model)
    ours = {f"img_backbone.{name}": tuple(entry.shape) for name, entry in backbone.state_dict().items()}
    ours |= {f"img_neck.{name}": tuple(entry.shape) for name, entry in neck.state_dict().items()}
    official = golden_state_dict_shapes(model)
    assert list(ours.items()) == [item for item in official.items() if item[0].startswith(("img_backbone", "img_neck"))]


# ---------------------------------------------------------------------------------------------- ResNet


def test_folding_a_norm_equals_applying_it() -> None:
    frozen, norm, conv = FrozenBatchNorm(5), nn.BatchNorm2d(5).eval(), nn.Conv2d(3, 5, 3, bias=False)
    fill_module(norm, "any.")
    frozen.load_state_dict(norm.state_dict())
    features = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(functional.conv2d(features, *frozen.folded_into(conv.weight)), norm(conv(features)))


def test_training_mode_changes_neither_norms_nor_outputs() -> None:
    backbone = ResNet(DEFORMABLE_RESNET)
    before = {name: entry.clone() for name, entry in backbone.state_dict().items()}
    batch = images()
    with torch.no_grad():
        trained, evaluated = backbone.train()(batch)[-1], backbone.eval()(batch)[-1]
    torch.testing.assert_close(trained, evaluated, atol=0, rtol=0)
    assert all(torch.equal(entry, before[name]) for name, entry in backbone.state_dict().items())


@pytest.mark.parametrize(("frozen_stages", "frozen"), [(-1, ()), (0, ("conv1",)), (1, ("conv1", "layer1"))])
def test_frozen_stages_are_all_that_does_not_train(frozen_stages: int, frozen: tuple[str, ...]) -> None:
    backbone = ResNet(DEFORMABLE_RESNET.model_copy(update={"frozen_stages": frozen_stages}))
    sum(level.square().mean() for level in backbone(images())).backward()
    trained = {name.split(".")[0] for name, parameter in backbone.named_parameters() if parameter.grad is not None}
    assert trained == {"conv1", "layer1", "layer2", "layer3", "layer4"} - set(frozen)
    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad == (not name.startswith(frozen or ("none",)))


def test_recomputing_activations_changes_no_gradient() -> None:
    batch, gradients = images(), []
    backbone = ResNet(DEFORMABLE_RESNET)
    for checkpoint_activations in (False, True):
        backbone.config = DEFORMABLE_RESNET.model_copy(update={"checkpoint_activations": checkpoint_activations})
        backbone.zero_grad()
        backbone(batch)[-1].square().mean().backward()
        gradients.append({name: p.grad for name, p in backbone.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


@pytest.mark.parametrize("config", [ResNetConfig(), PLAIN_RESNET])
def test_an_untrained_backbone_stays_within_half_precision(config: ResNetConfig) -> None:
    with torch.no_grad():
        for level in ResNet(config)(100 * images()):
            assert level.std() > 1
            assert level.abs().max() < 6e3  # a tenth of float16's range


def test_outputs_have_the_stated_strides_and_channels() -> None:
    config = DEFORMABLE_RESNET.model_copy(update={"out_stages": (1, 2, 4)})
    with torch.no_grad():
        shapes = [tuple(level.shape) for level in ResNet(config)(images(1, 64, 96))]
    assert shapes == [(1, 256, 16, 24), (1, 512, 8, 12), (1, 2048, 2, 3)]
    assert config.out_channels == (256, 512, 2048)


def test_channels_last_changes_nothing() -> None:
    backbone, batch = ResNet(DEFORMABLE_RESNET), images()
    with torch.no_grad():
        expected = backbone(batch)
        backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        found = backbone(batch.to(memory_format=torch.channels_last))
    for ours, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, reference, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_half_precision_is_close_to_single(precision: torch.dtype) -> None:
    backbone, neck, batch = ResNet(DEFORMABLE_RESNET), FPN(FPNConfig()), images(1)
    with torch.no_grad():
        expected = neck(backbone(batch))
        with torch.autocast("cpu", precision):
            found = neck(backbone(batch))
    for ours, reference in zip(found, expected, strict=True):
        assert ours.dtype == precision
        assert (ours.float() - reference).norm() < 0.02 * reference.norm()


# ---------------------------------------------------------------------------------------------- neck


def test_neck_adds_coarse_to_fine_at_odd_sizes() -> None:
    neck = FPN(FPNConfig(in_channels=(2, 3), out_channels=4, levels=3))
    for conv in neck.lateral_convs:
        nn.init.zeros_(conv.conv.weight)
    nn.init.ones_(neck.lateral_convs[1].conv.bias)
    nn.init.dirac_(neck.fpn_convs[0].conv.weight)
    with torch.no_grad():
        fine, coarse, extra = neck((torch.randn(1, 2, 7, 9), torch.randn(1, 3, 4, 5)))
    assert (fine == 1).all()
    assert [tuple(level.shape[-2:]) for level in (fine, coarse, extra)] == [(7, 9), (4, 5), (2, 3)]


# ---------------------------------------------------------------------------------------------- small backbone


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_small_backbone_serves_one_image_like_many(norm: str) -> None:
    backbone = SmallBackbone(SmallBackboneConfig(norm=norm))
    batch = images(6, 128, 224)
    backbone.train()(batch)
    backbone.eval()
    with torch.no_grad():
        together, alone = backbone(batch), backbone(batch[:1])
    assert [tuple(level.shape) for level in together] == [(6, 64, 16, 28), (6, 128, 8, 14)]
    for ours, reference in zip(alone, together, strict=True):
        torch.testing.assert_close(ours, reference[:1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_small_backbone_learns_from_scratch(norm: str) -> None:
    backbone = SmallBackbone(SmallBackboneConfig(channels=(8, 8, 16, 16), blocks=(1, 1, 1), norm=norm))
    batch = images(6, 32, 32)
    target = functional.avg_pool2d(batch, 8)
    optimizer = torch.optim.Adam(backbone.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        loss = functional.mse_loss(backbone(batch)[0][:, :3], target.relu())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


# ---------------------------------------------------------------------------------------------- passes over many images


def test_passes_give_what_all_images_at_once_give(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, neck = SmallBackbone(SmallBackboneConfig()).eval(), FPN(FPNConfig(in_channels=(64, 128), levels=2))
    batch = images(5)
    with torch.no_grad():
        expected = image_features(backbone, neck, batch)
        monkeypatch.setattr("detectors.image_features.PIXELS_PER_CPU_PASS", 2 * 64 * 96)
        found = image_features(backbone, neck, batch)
    for ours, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, reference, atol=1e-5, rtol=1e-5)


def test_only_inference_takes_images_in_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detectors.image_features.PIXELS_PER_CPU_PASS", 1)
    backbone, neck = SmallBackbone(SmallBackboneConfig()), FPN(FPNConfig(in_channels=(64, 128), levels=2))
    sizes: list[int] = []
    backbone.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    image_features(backbone.train(), neck, images(3))
    with torch.no_grad():
        image_features(backbone, neck, images(3))  # batch statistics need all images
        image_features(backbone.eval(), neck, images(3))
    assert sizes == [3, 3, 1, 1, 1]


def test_block_strides_follow_the_style() -> None:
    strides = {}
    for style in ("caffe", "pytorch"):
        block = Bottleneck(8, 4, 2, PLAIN_RESNET.model_copy(update={"style": style}), deformable=False)
        strides[style] = (block.conv1.stride, block.conv2.stride)
    assert strides == {"caffe": ((2, 2), (1, 1)), "pytorch": ((1, 1), (2, 2))}


COMPILE_IN_ONE_GRAPH = """
import torch
from detectors.config import FPNConfig, ResNetConfig, SmallBackboneConfig
from detectors.fpn import FPN
from detectors.image_features import image_features
from detectors.resnet import ResNet
from detectors.small_backbone import SmallBackbone
from tests.golden_backbone import GOLDEN_BACKBONE, backbone_errors, published_backbone
from tests.golden_recipe import fill_module, golden_state_dict_shapes

torch.set_num_threads(1)
resnet = ResNetConfig(depth=50, deformable_stages=(4,), checkpoint_activations=True)
small = SmallBackboneConfig()
for backbone, config in ((ResNet(resnet), resnet), (SmallBackbone(small), small)):
    neck, images = FPN(FPNConfig(in_channels=config.out_channels)), torch.randn(1, 3, 64, 96)
    compiled = torch.compile(image_features, backend="eager", fullgraph=True)
    for ours, expected in zip(compiled(backbone, neck, images), image_features(backbone, neck, images), strict=True):
        torch.testing.assert_close(ours, expected)
print("one graph each")
"""


def test_compilation_finds_one_graph() -> None:
    # A process of its own: the shape checks that pytest adds to every function are what would break the graph here.
    command = [sys.executable, "-c", COMPILE_IN_ONE_GRAPH]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert finished.stdout == "one graph each\n", finished.stderr
