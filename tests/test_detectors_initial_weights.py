"""Backbone files of other tasks and parts of whole detectors: what fills what, and what is refused by name."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from train_world import tiny_detector

from detectors.config import ResNetConfig
from detectors.initial_weights import load_backbone, load_parts
from detectors.resnet import ResNet
from detectors.weights import save_weights
from schemas.errors import CheckpointError

TINY = ResNetConfig(depth=50, style="pytorch", out_stages=(4,), deformable_stages=())
BLOCKS = (3, 4, 6, 3)


def number(value: int, *shape: int) -> Tensor:
    """A tensor of one number, which takes the place of one number in a file."""
    return torch.tensor(1 + value / 1000).expand(shape)


def norm(name: str, channels: int) -> dict[str, Tensor]:
    entries = {f"{name}.{part}": number(len(name + part), channels) for part in ("weight", "bias", "running_mean")}
    return entries | {f"{name}.running_var": number(7, channels), f"{name}.num_batches_tracked": torch.tensor(5)}


def torchvision_resnet50() -> dict[str, Tensor]:
    """Names and shapes of torchvision's ResNet-50, which are also those of the caffe files that mmcv converted."""
    entries = {"conv1.weight": number(1, 64, 3, 7, 7), **norm("bn1", 64)}
    wide = 64
    for stage, blocks in enumerate(BLOCKS, start=1):
        narrow = 64 * 2 ** (stage - 1)
        for block in range(blocks):
            place = f"layer{stage}.{block}"
            entries[f"{place}.conv1.weight"] = number(10 * stage + block, narrow, wide, 1, 1)
            entries[f"{place}.conv2.weight"] = number(20 * stage + block, narrow, narrow, 3, 3)
            entries[f"{place}.conv3.weight"] = number(30 * stage + block, 4 * narrow, narrow, 1, 1)
            entries |= norm(f"{place}.bn1", narrow) | norm(f"{place}.bn2", narrow) | norm(f"{place}.bn3", 4 * narrow)
            if block == 0:
                entries[f"{place}.downsample.0.weight"] = number(40 * stage, 4 * narrow, wide, 1, 1)
                entries |= norm(f"{place}.downsample.1", 4 * narrow)
            wide = 4 * narrow
    return entries | {"fc.weight": number(2, 1000, 2048), "fc.bias": number(3, 1000)}


def saved(entries: dict[str, Tensor], path: Path) -> Path:
    torch.save(entries, path)
    return path


@pytest.mark.parametrize("prefix", ["", "backbone.", "img_backbone.", "module.backbone."])
def test_a_classifier_fills_a_backbone_with_its_statistics(tmp_path: Path, prefix: str) -> None:
    published = torchvision_resnet50()
    others = {} if prefix == "" else {f"{'module.' * prefix.startswith('module.')}neck.weight": number(1, 3)}
    path = saved({prefix + name: entry for name, entry in published.items()} | others, tmp_path / "resnet50.pth")
    backbone = ResNet(TINY)
    report = load_backbone(backbone, path)
    state = backbone.state_dict()
    assert set(report.matched) == set(state)
    assert set(report.unexpected) == {"fc.weight", "fc.bias"}
    for name, entry in state.items():
        assert torch.equal(entry, published[name].expand_as(entry)), name
    assert state["layer3.5.bn2.running_var"].unique().tolist() == pytest.approx([1.007])


def test_a_file_without_deformable_convolutions_leaves_their_offsets_at_zero(tmp_path: Path) -> None:
    path = saved({"state_dict": torchvision_resnet50()}, tmp_path / "resnet50_caffe.pth")  # type: ignore[dict-item]
    backbone = ResNet(ResNetConfig(depth=50, deformable_stages=(4,)))
    report = load_backbone(backbone, path)
    added = {name: entry for name, entry in backbone.state_dict().items() if name not in report.matched}
    assert set(added) == {f"layer4.{i}.conv2.conv_offset.{part}" for i in range(3) for part in ("weight", "bias")}
    assert not any(entry.any() for entry in added.values())


def test_offsets_in_the_file_are_taken(tmp_path: Path) -> None:
    offset = {"layer4.0.conv2.conv_offset.bias": number(9, 27)}
    path = saved(torchvision_resnet50() | offset, tmp_path / "fcos3d.pth")
    backbone = ResNet(ResNetConfig(depth=50, deformable_stages=(4,)))
    load_backbone(backbone, path)
    assert backbone.state_dict()["layer4.0.conv2.conv_offset.bias"].tolist() == pytest.approx([1.009] * 27)


def test_a_backbone_of_another_depth_or_shape_is_refused_by_name_and_changes_nothing(tmp_path: Path) -> None:
    entries = torchvision_resnet50() | {"layer1.0.conv1.weight": number(1, 32, 64, 1, 1)}
    path = saved(entries, tmp_path / "narrow.pth")
    backbone = ResNet(ResNetConfig(deformable_stages=()))
    before = backbone.conv1.weight.clone()
    with pytest.raises(CheckpointError) as refusal:
        load_backbone(backbone, path)
    for part in (
        "255 missing from the file: layer3.6.conv1.weight",
        "of another shape: layer1.0.conv1.weight [32, 64, 1, 1] instead of [64, 64, 1, 1]",
        "change student.detector.backbone (depth, style)",
    ):
        assert part in str(refusal.value)
    assert torch.equal(backbone.conv1.weight, before)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    entries = torchvision_resnet50() | {"bn1.running_var": torch.full((64,), float("nan"))}
    with pytest.raises(CheckpointError, match=r"bn1\.running_var holds NaN"):
        load_backbone(ResNet(TINY), saved(entries, tmp_path / "diverged.pth"))


def test_parts_of_a_whole_detector_fill_those_parts_alone(tmp_path: Path) -> None:
    source, target, before = tiny_detector(seed=1), tiny_detector(seed=2), tiny_detector(seed=2)
    save_weights(source, tmp_path / "whole.safetensors")
    parts = ("img_neck", "pts_bbox_head.transformer.decoder")
    report = load_parts(target, tmp_path / "whole.safetensors", parts)
    for name, entry in target.state_dict().items():
        wanted = name.startswith(("img_neck.", "pts_bbox_head.transformer.decoder."))
        assert wanted == (name in report.matched)
        assert torch.equal(entry, (source if wanted else before).state_dict()[name])
    assert len(report.unexpected) == len(target.state_dict()) - len(report.matched)


def test_a_part_that_the_detector_or_the_file_lacks_is_refused(tmp_path: Path) -> None:
    detector = tiny_detector()
    save_weights(detector.img_neck, tmp_path / "neck.safetensors")
    with pytest.raises(CheckpointError, match=r"no part 'img_nec' .*parts are img_backbone, img_neck, pts_bbox_head"):
        load_parts(detector, tmp_path / "neck.safetensors", ("img_nec",))
    with pytest.raises(CheckpointError, match=r"missing from the file: img_neck\.lateral_convs"):
        load_parts(detector, tmp_path / "neck.safetensors", ("img_neck",))
