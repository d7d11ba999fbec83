"""What a BEVFormer is made of, as frozen values. Numbers of whole models are in ``detectors/catalogue.py``.

A configuration is part of a cache's identity (its canonical JSON is the manifest's ``architecture``), so it holds what
shapes or changes the network and nothing about how it is trained. Defaults are those of the published Base model, but
the two flags that reproduce published mistakes (``rotate_center``, ``shift_both_references``) default to right.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.bev_grid import BevGrid
from schemas.boxes import CLASS_NAMES
from schemas.preprocessing import Preprocessing

LEVEL_EMBEDDING_ROWS = 4
"""Rows of ``level_embeds``: four in every published model, though Small and Tiny use only the first."""

BOX_CODE_LENGTH = 10
"""cx, cy, log w, log l, cz, log h, sin yaw, cos yaw, vx, vy."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _check_stages(name: str, stages: tuple[int, ...]) -> None:
    if not stages or list(stages) != sorted({stage for stage in stages if 1 <= stage <= 4}):
        raise ValueError(f"{name} must be ascending stage numbers from 1 to 4, got {stages}")


class ResNetConfig(_Frozen):
    """A bottleneck ResNet with the published checkpoints' names.

    Attributes:
        depth: 50 or 101.
        style: where a stage's stride sits: ``caffe`` in the first 1×1 convolution, ``pytorch`` in the 3×3.
        out_stages: which of ``layer1`` .. ``layer4`` are returned, ascending.
        deformable_stages: stages whose 3×3 convolutions are DCNv2.
        frozen_stages: the stem and this many stages are not trained; -1 trains the stem too. Batch norm never trains.
        checkpoint_activations: recompute each block in the backward pass, trading time for memory.
    """

    kind: Literal["resnet"] = "resnet"
    depth: Literal[50, 101] = 101
    style: Literal["caffe", "pytorch"] = "caffe"
    out_stages: tuple[int, ...] = (2, 3, 4)
    deformable_stages: tuple[int, ...] = (3, 4)
    frozen_stages: int = Field(default=1, ge=-1, le=4)
    checkpoint_activations: bool = False

    @property
    def blocks(self) -> tuple[int, int, int, int]:
        """Residual blocks of each stage."""
        return (3, 4, 23, 3) if self.depth == 101 else (3, 4, 6, 3)

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each returned map."""
        return tuple(256 * 2 ** (stage - 1) for stage in self.out_stages)

    @model_validator(mode="after")
    def _check(self) -> "ResNetConfig":
        _check_stages("out_stages", self.out_stages)
        if self.deformable_stages:
            _check_stages("deformable_stages", self.deformable_stages)
        return self


class SmallBackboneConfig(_Frozen):
    """A small residual network that learns from scratch on a CPU; returns maps of strides 8 and 16.

    Attributes:
        channels: of the stem (stride 2) and of the stages with strides 4, 8 and 16.
        blocks: residual blocks of the three stages.
        norm: ``batch`` (statistics of the batch while training) or ``group`` (8 groups).
    """

    kind: Literal["small"] = "small"
    channels: tuple[int, int, int, int] = (16, 32, 64, 128)
    blocks: tuple[int, int, int] = (1, 2, 2)
    norm: Literal["batch", "group"] = "batch"

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each returned map."""
        return self.channels[2:]

    @model_validator(mode="after")
    def _check(self) -> "SmallBackboneConfig":
        if min(self.blocks) < 1 or any(count < 8 or count % 8 for count in self.channels):
            raise ValueError(f"a small backbone needs blocks >= 1 and channels in multiples of 8, got {self!r}")
        return self


class FPNConfig(_Frozen):
    """Feature pyramid network.

    Attributes:
        in_channels: channels of the backbone's maps, finest first.
        out_channels: of every level.
        levels: maps returned; those beyond ``in_channels`` are stride-2 convolutions of the level before.
    """

    in_channels: tuple[int, ...] = (512, 1024, 2048)
    out_channels: int = 256
    levels: int = Field(default=4, ge=1, le=LEVEL_EMBEDDING_ROWS)

    @model_validator(mode="after")
    def _check(self) -> "FPNConfig":
        if not 1 <= len(self.in_channels) <= self.levels:
            raise ValueError(f"a pyramid of {self.levels} levels cannot come from {len(self.in_channels)} maps")
        return self


class EncoderConfig(_Frozen):
    """BEV encoder: temporal self-attention, spatial cross-attention and a feed-forward network in every layer.

    Attributes:
        layers: encoder layers.
        heads: attention heads of both attentions.
        temporal_points: sampling points per head and BEV in temporal self-attention.
        spatial_points: sampling points per head and image level, shared out over the heights.
        heights: 3D reference points in the pillar above a cell.
        ffn_channels: hidden channels of the feed-forward network.
        dropout: after each attention and inside the feed-forward network.
        rotate_center: ``(col, row)`` in cells that the previous BEV is rotated about; None is the map's centre.
            The published models all use (100, 100), which is the centre of Base's map only.
        shift_both_references: add the ego shift to the current BEV's reference points too, as the code that trained
            the published weights did.
        spatial_start: how spatial cross-attention is initialised. ``published``: heads look in all directions, pixels
            apart, at all heights alike. ``pillar``: each head looks exactly at one height of the pillar, so a cell
            starts with its own column of the image, ordered by height; that learns in minutes.
        history_fusion: after the layers, convolve the present BEV with the previous one laid beneath it
            (``detectors/history_fusion.py``). Off in the published models.
    """

    layers: int = Field(default=6, ge=1)
    heads: int = Field(default=8, ge=1)
    temporal_points: int = Field(default=4, ge=1)
    spatial_points: int = Field(default=8, ge=1)
    heights: int = Field(default=4, ge=1)
    ffn_channels: int = Field(default=512, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    rotate_center: tuple[float, float] | None = None
    shift_both_references: bool = False
    spatial_start: Literal["published", "pillar"] = "published"
    history_fusion: bool = False

    @model_validator(mode="after")
    def _check(self) -> "EncoderConfig":
        if self.spatial_points % self.heights:
            raise ValueError(f"spatial_points ({self.spatial_points}) must be a multiple of heights ({self.heights})")
        return self


class DecoderConfig(_Frozen):
    """Object decoder: self-attention, deformable cross-attention to the BEV, feed-forward network; boxes refined.

    Attributes:
        layers: decoder layers.
        heads: attention heads.
        points: sampling points per head in the BEV.
        queries: object queries.
        ffn_channels: hidden channels of the feed-forward network.
        dropout: in and after each attention and inside the feed-forward network.
    """

    layers: int = Field(default=6, ge=1)
    heads: int = Field(default=8, ge=1)
    points: int = Field(default=4, ge=1)
    queries: int = Field(default=900, ge=1)
    ffn_channels: int = Field(default=512, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)


class LossConfig(_Frozen):
    """Weights of matching and losses; matching costs use the loss weights, as published.

    Attributes:
        class_weight: focal loss.
        box_weight: L1 of the box code.
        code_weights: factor of each of the ten code entries in the L1.
        focal_alpha, focal_gamma: of the focal loss and of the matching cost.
        heatmap_weight: loss of the BEV heatmap, where the head has one.
        velocity_needs_history: teach velocity only where a frame came before; off in the published models. One picture
            does not tell a speed, and asking for it drowns what a young network can learn from one.
    """

    class_weight: float = 2.0
    box_weight: float = 0.25
    code_weights: tuple[float, ...] = (1, 1, 1, 1, 1, 1, 1, 1, 0.2, 0.2)
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    heatmap_weight: float = 1.0
    velocity_needs_history: bool = False

    @model_validator(mode="after")
    def _check(self) -> "LossConfig":
        if len(self.code_weights) != BOX_CODE_LENGTH:
            raise ValueError(f"code_weights needs {BOX_CODE_LENGTH} numbers, got {len(self.code_weights)}")
        return self


class HeadConfig(_Frozen):
    """Detection head.

    Attributes:
        max_detections: (query, class) pairs kept per frame, best first.
        detection_range_m: ``(x_min, y_min, z_min, x_max, y_max, z_max)``; centres outside are dropped when decoding.
        heatmap_queries: predict a class heatmap over the BEV and start the queries at its peaks (content and reference
            point) instead of at learned places. Off in the published models.
        heatmap_min_radius_cells: smallest radius of an object's Gaussian in the heatmap's target.
    """

    max_detections: int = Field(default=300, ge=1)
    detection_range_m: tuple[float, float, float, float, float, float] = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)
    heatmap_queries: bool = False
    heatmap_min_radius_cells: int = Field(default=1, ge=0)


class BEVFormerConfig(_Frozen):
    """A whole detector.

    Attributes:
        embed_dims: channels of BEV cells, image tokens and object queries.
        grid: the BEV map; sets the number of BEV queries and the rows of the position tables.
        preprocessing: what the camera images must have been through.
        class_names: class of each logit.
        grid_mask_probability: chance that a training frame's images get a GridMask.
    """

    embed_dims: int = Field(default=256, ge=2)
    backbone: Annotated[ResNetConfig | SmallBackboneConfig, Field(discriminator="kind")] = ResNetConfig()
    neck: FPNConfig = FPNConfig()
    encoder: EncoderConfig = EncoderConfig()
    decoder: DecoderConfig = DecoderConfig()
    head: HeadConfig = HeadConfig()
    loss: LossConfig = LossConfig()
    grid: BevGrid
    preprocessing: Preprocessing
    class_names: tuple[str, ...] = CLASS_NAMES
    grid_mask_probability: float = Field(default=0.7, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> "BEVFormerConfig":
        if self.backbone.out_channels != self.neck.in_channels:
            raise ValueError(
                f"neck.in_channels is {self.neck.in_channels}, the backbone gives {self.backbone.out_channels}"
            )
        if self.neck.out_channels != self.embed_dims:
            raise ValueError(f"neck.out_channels is {self.neck.out_channels}, embed_dims is {self.embed_dims}")
        for heads in (self.encoder.heads, self.decoder.heads, 2):
            if self.embed_dims % heads:
                raise ValueError(f"embed_dims ({self.embed_dims}) must be a multiple of 2 and of the heads ({heads})")
        if len(set(self.class_names)) != len(self.class_names) or not self.class_names:
            raise ValueError(f"class_names must be distinct and at least one, got {self.class_names}")
        return self
