"""The detectors we offer, by name. Each function returns a whole configuration, and its docstring is its lab note.

Published weights: https://github.com/zhiqi-li/storage/releases/download/v1.0/<checkpoint file>. Scores are those of
BEVFormer's README on the nuScenes validation split after 24 epochs (Li et al., arXiv:2203.17270).
"""

from collections.abc import Callable

from detectors.bevformer import BEVFormer
from detectors.config import (
    BEVFormerConfig,
    DecoderConfig,
    EncoderConfig,
    FPNConfig,
    HeadConfig,
    LossConfig,
    ResNetConfig,
    SmallBackboneConfig,
)
from schemas.bev_grid import BevGrid
from schemas.preprocessing import Preprocessing

PUBLISHED_EXTENT_M = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
DEMO_EXTENT_M = (-32.0, -32.0, -2.5, 32.0, 32.0, 1.5)
"""Its four heights are the ground, one, two and three metres above it: where the synthetic world's objects are."""

DEMO_LOSS = LossConfig(code_weights=(1, 1, 1, 1, 1, 1, 1, 1, 2.5, 2.5), velocity_needs_history=True)
"""Velocity counts far more than the published 0.2, and not where there is no frame before.

With 0.5 in all frames the teacher learned none: mAVE 1.74 m/s on tune, where a prediction of zero gives 1.95. With this
and ``history_fusion`` it is 0.96; in short trials the fusion with a weight of 0.5 changed nothing.
"""

CAFFE_BGR = Preprocessing(color_order="bgr", mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0))
IMAGENET_RGB = Preprocessing(color_order="rgb", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))


def bevformer_base() -> BEVFormerConfig:
    """BEVFormer-Base: 51.7 NDS, 41.6 mAP; 69.03 M parameters; ``bevformer_r101_dcn_24ep.pth``.

    ResNet-101 with DCNv2, four image levels of 928×1600, 200×200 BEV cells, six encoder layers.
    """
    return BEVFormerConfig(
        encoder=_published_encoder(layers=6),
        grid=BevGrid(rows=200, cols=200, extent_m=PUBLISHED_EXTENT_M),
        preprocessing=CAFFE_BGR,
    )


def bevformer_small() -> BEVFormerConfig:
    """BEVFormer-Small: 47.9 NDS, 37.0 mAP; 59.46 M parameters; ``bevformer_small_epoch_24.pth``.

    As Base with one image level of 736×1280, 150×150 BEV cells and three encoder layers.
    """
    return BEVFormerConfig(
        backbone=ResNetConfig(out_stages=(4,), checkpoint_activations=True),
        neck=FPNConfig(in_channels=(2048,), levels=1),
        encoder=_published_encoder(layers=3),
        grid=BevGrid(rows=150, cols=150, extent_m=PUBLISHED_EXTENT_M),
        preprocessing=CAFFE_BGR.model_copy(update={"scale": 0.8}),
    )


def bevformer_tiny() -> BEVFormerConfig:
    """BEVFormer-Tiny: 35.4 NDS, 25.2 mAP; 33.52 M parameters; ``bevformer_tiny_epoch_24.pth``.

    ResNet-50, one image level of 480×800, 50×50 BEV cells, three encoder layers. The checkpoint
    ``bevformer_tiny_fp16_epoch_24.pth``, trained in half precision (35.9 NDS, 25.7 mAP), has the same entries.
    """
    return BEVFormerConfig(
        backbone=ResNetConfig(depth=50, style="pytorch", out_stages=(4,), deformable_stages=()),
        neck=FPNConfig(in_channels=(2048,), levels=1),
        encoder=_published_encoder(layers=3),
        grid=BevGrid(rows=50, cols=50, extent_m=PUBLISHED_EXTENT_M),
        preprocessing=IMAGENET_RGB.model_copy(update={"scale": 0.5}),
    )


def fd3d_small() -> BEVFormerConfig:
    """FD3D's own Small: 46.26 NDS, 34.56 mAP alone, 48.73 and 37.64 taught by Base with FD3D. Not BEVFormer-Small.

    ResNet-101 with DCNv2 and Base's four image levels at half the resolution: stages 1 to 4 of 464×800 pixels have the
    sizes of Base's levels. 100×100 BEV cells, three encoder layers, clips of four. 58.92 M parameters; no weights were
    published. Scores: README of the code of Focal Distiller (Zeng et al., CVPR 2023), whose configuration this is; but
    the history is rotated about the map's centre, and the ego shift is added to its reference points alone.
    """
    return BEVFormerConfig(
        backbone=ResNetConfig(out_stages=(1, 2, 3, 4)),
        neck=FPNConfig(in_channels=(256, 512, 1024, 2048)),
        encoder=EncoderConfig(layers=3),
        grid=BevGrid(rows=100, cols=100, extent_m=PUBLISHED_EXTENT_M),
        preprocessing=CAFFE_BGR.model_copy(update={"scale": 0.5, "pad_multiple": 16}),
    )


def fd3d_tiny() -> BEVFormerConfig:
    """FD3D's own Tiny: 39.02 NDS, 26.87 mAP alone, 43.09 and 31.00 with FD3D. Not BEVFormer-Tiny.

    Its teacher is a Base without DCNv2 (47.37 NDS, 36.44 mAP), whose weights were not published, as this student's
    configuration was not. Known are ResNet-50, 100×100 cells and images of 450×800; the rest is ``fd3d_small``'s, with
    the backbone and colours of BEVFormer-Tiny. 38.13 M parameters.
    """
    return fd3d_small().model_copy(
        update={
            "backbone": ResNetConfig(depth=50, style="pytorch", out_stages=(1, 2, 3, 4), deformable_stages=()),
            "preprocessing": IMAGENET_RGB.model_copy(update={"scale": 0.5, "pad_multiple": 16}),
        }
    )


def demo_teacher() -> BEVFormerConfig:
    """The demo's teacher: 40×40 cells over ±32 m, images of 128×224, history; for CPUs.

    Two encoder layers: the first layer's temporal attention cannot know what the present images show, so only a second
    one can look for where a thing was.
    """
    return BEVFormerConfig(
        embed_dims=64,
        backbone=SmallBackboneConfig(),
        neck=FPNConfig(in_channels=(64, 128), out_channels=64, levels=2),
        encoder=_demo_encoder(layers=2),
        decoder=DecoderConfig(layers=1, heads=4, queries=150, ffn_channels=128, dropout=0.0),
        head=_demo_head(),
        loss=DEMO_LOSS,
        grid=BevGrid(rows=40, cols=40, extent_m=DEMO_EXTENT_M),
        preprocessing=IMAGENET_RGB,
        grid_mask_probability=0.0,
    )


def demo_student() -> BEVFormerConfig:
    """The demo's student: as its teacher with images of 64×112, half the backbone's channels, one encoder layer."""
    return BEVFormerConfig(
        embed_dims=64,
        backbone=SmallBackboneConfig(channels=(16, 24, 48, 64), blocks=(1, 1, 1)),
        neck=FPNConfig(in_channels=(48, 64), out_channels=64, levels=2),
        encoder=_demo_encoder(layers=1),
        decoder=DecoderConfig(layers=1, heads=4, queries=150, ffn_channels=128, dropout=0.0),
        head=_demo_head(),
        loss=DEMO_LOSS,
        grid=BevGrid(rows=40, cols=40, extent_m=DEMO_EXTENT_M),
        preprocessing=IMAGENET_RGB.model_copy(update={"scale": 0.5, "pad_multiple": 16}),
        grid_mask_probability=0.0,
    )


DETECTORS: dict[str, Callable[[], BEVFormerConfig]] = {
    "bevformer-base": bevformer_base,
    "bevformer-small": bevformer_small,
    "bevformer-tiny": bevformer_tiny,
    "fd3d-small": fd3d_small,
    "fd3d-tiny": fd3d_tiny,
    "demo-teacher": demo_teacher,
    "demo-student": demo_student,
}


def build(config: BEVFormerConfig) -> BEVFormer:
    """A detector with freshly initialised weights, in training mode, on torch's default device."""
    return BEVFormer(config)


def _published_encoder(layers: int) -> EncoderConfig:
    """Both flags keep what the published weights were trained with, mistakes included."""
    return EncoderConfig(layers=layers, rotate_center=(100.0, 100.0), shift_both_references=True)


def _demo_encoder(layers: int) -> EncoderConfig:
    return EncoderConfig(
        layers=layers,
        heads=4,
        spatial_points=4,
        ffn_channels=128,
        dropout=0.0,
        spatial_start="pillar",
        history_fusion=True,
    )


def _demo_head() -> HeadConfig:
    return HeadConfig(heatmap_queries=True, detection_range_m=(-35.0, -35.0, -10.0, 35.0, 35.0, 10.0))
