"""BEVFormer (Li et al., arXiv:2203.17270), whole: six images and the previous BEV in, BEV features and objects out."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from detectors.box_code import VELOCITY
from detectors.config import BEVFormerConfig, ResNetConfig
from detectors.decoding import decode_queries
from detectors.detection_loss import detection_losses
from detectors.ego_motion import aligned_history, continues, relative_can_bus, state_after
from detectors.fpn import FPN
from detectors.grid_mask import grid_mask
from detectors.head import BEVFormerHead
from detectors.heatmap_loss import heatmap_losses
from detectors.heatmap_queries import CellPredictions
from detectors.image_features import image_features
from detectors.inputs import CameraBatch
from detectors.outputs import DetectorFeatures, TemporalAttention, TemporalState
from detectors.resnet import ResNet
from detectors.small_backbone import SmallBackbone
from detectors.spatial_cross_attention import CameraFeatures
from detectors.targets import targets_of
from detectors.teacher_features import cacheable, feature_specs
from schemas.boxes import Boxes
from schemas.features import FeatureSpec


class BEVFormer(nn.Module):
    """A detector that remembers nothing: what a frame needs of the one before comes in and goes out as an argument."""

    def __init__(self, config: BEVFormerConfig) -> None:
        super().__init__()
        self.config = config
        backbone = config.backbone
        self.img_backbone = ResNet(backbone) if isinstance(backbone, ResNetConfig) else SmallBackbone(backbone)
        self.img_neck = FPN(config.neck)
        self.pts_bbox_head = BEVFormerHead(config)

    def features(self, batch: CameraBatch, previous: TemporalState | None) -> tuple[DetectorFeatures, TemporalState]:
        """One frame of each sequence.

        Args:
            batch: the frames.
            previous: the state this method or ``encode`` returned for the frames before; None at the start. A sample
                whose scene token differs from its state's starts without history, whatever the others do.

        Returns:
            The features, and the state for the next frames. ``previous`` is left as it was.
        """
        images = batch.images
        if self.training:
            images = grid_mask(images, self.config.grid_mask_probability)
        bev, temporal = self._encode(batch, images, previous)
        queries, cells = self.pts_bbox_head.detect(bev)
        features = DetectorFeatures(
            bev=bev.reshape(len(bev), *self.config.grid.shape, -1),
            queries=queries,
            temporal=temporal,
            has_history=torch.tensor(continues(batch.scene_tokens, previous), device=bev.device),
            heatmap=None if cells is None else cells.heatmap,
            cell_boxes=None if cells is None else cells.boxes,
        )
        return features, state_after(batch, bev)

    def encode(self, batch: CameraBatch, previous: TemporalState | None) -> TemporalState:
        """The state after frames that only serve as history: no objects are decoded, no GridMask applied.

        The published training runs these in evaluation mode and without gradient; both are the caller's to set.
        """
        bev, _ = self._encode(batch, batch.images, previous)
        return state_after(batch, bev)

    def losses(self, features: DetectorFeatures, annotations: Sequence[Boxes]) -> dict[str, Tensor]:
        """Weighted training losses, to be summed; annotations are filtered by range here.

        Raises:
            DataError: an annotation has no box code.
            UserError: predictions are not finite.
        """
        targets = targets_of(annotations, self.config.grid, features.bev.device)
        code_weights = self._code_weights(features)
        losses = detection_losses(features.queries, targets, code_weights, self.config.loss)
        if features.heatmap is not None and features.cell_boxes is not None:
            cells = CellPredictions(features.heatmap, features.cell_boxes)
            losses |= heatmap_losses(cells, targets, code_weights, self.config)
        return losses

    def _code_weights(self, features: DetectorFeatures) -> Float32[Tensor, "batch 10"]:
        """Of every sample's box codes."""
        weights: Tensor = self.pts_bbox_head.code_weights.repeat(len(features.bev), 1)
        if self.config.loss.velocity_needs_history:
            weights[:, VELOCITY] *= features.has_history[:, None]
        return weights

    def decode(self, features: DetectorFeatures) -> list[Boxes]:
        """Scored detections of every sample, best first."""
        return decode_queries(features.queries, self.config.head)

    def boxes_from_bev(self, bev: Float[Tensor, "batch row col channel"]) -> list[Boxes]:
        """What the decoder sees in BEV features, for example in cached ones; as ``decode`` of their frame."""
        queries, _ = self.pts_bbox_head.detect(bev.flatten(1, 2))
        return decode_queries(queries, self.config.head)

    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        """What ``cacheable`` gives for every frame, and how a cache stores it."""
        return feature_specs(self.config)

    def cacheable(self, features: DetectorFeatures, index: int) -> dict[str, Tensor]:
        """The features of one sample, keyed by the names of ``feature_specs``, in their shapes."""
        return cacheable(features, index)

    def _encode(
        self, batch: CameraBatch, images: Float[Tensor, "batch camera 3 height width"], previous: TemporalState | None
    ) -> tuple[Float[Tensor, "batch cell channel"], TemporalAttention]:
        maps = image_features(self.img_backbone, self.img_neck, images.flatten(0, 1))
        cameras = CameraFeatures(
            maps=tuple(level_map.reshape(*images.shape[:2], *level_map.shape[1:]) for level_map in maps),
            image_from_lidar=batch.image_from_lidar,
            image_hw=(images.shape[-2], images.shape[-1]),
        )
        history = aligned_history(batch, previous, self.config.grid, self.config.encoder.rotate_center)
        return self.pts_bbox_head.encode(cameras, relative_can_bus(batch, previous), history)
