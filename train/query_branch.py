"""Object queries of a distiller's own, that learn on cached BEV maps where there is something to look at.

A decoder as BEVFormer's, with learned queries and box refinement, detects objects on the teacher's BEV and is trained
on the annotations. Where it looks there, it looks on the student's map too, with the same projection, places and
weights.

Source: the query branch in FD3D's released code (Zeng et al., CVPR 2023), reproduced to its numbers in
``tests/test_train_fd3d_parts_golden.py``; the release does not train it. Decided here: the student's readings do
not teach projection, places or weights, which could otherwise make both readings alike by reading nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from detectors.box_code import refine
from detectors.config import BEVFormerConfig, DecoderConfig, EncoderConfig, FPNConfig
from detectors.decoder import BevCrossAttention, Decoder, DecoderLayer
from detectors.deformable_sampling import project_map, sample_deformable
from detectors.detection_loss import detection_losses
from detectors.head import box_branch, class_branch, copies
from detectors.matching import match
from detectors.outputs import QueryOutputs
from detectors.targets import targets_of
from schemas.boxes import Boxes
from schemas.errors import RecipeError
from schemas.manifest import Manifest


class QueryBranchOptions(BaseModel):
    """Size of the branch; BEVFormer-Base's by default, as in the release but for the layers, which it leaves open."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    queries: int = Field(default=900, ge=1)
    layers: int = Field(default=6, ge=1)
    heads: int = Field(default=8, ge=1)
    points: int = Field(default=4, ge=1)
    ffn_channels: int = Field(default=512, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)


@dataclass(frozen=True, eq=False)
class PairedReadings:
    """What every query read at its places in each layer, before the output projection.

    Attributes:
        teacher: without gradient.
        student: with gradients to the student's map alone.
    """

    teacher: Float32[Tensor, "layer batch query channel"]
    student: Float32[Tensor, "layer batch query channel"]


class QueryBranch(nn.Module):
    """Learned queries, decoder and branches over a teacher's BEV.

    Args:
        options: its size.
        teacher: manifest of the cache: grid and classes.
        channels: of the teacher's BEV.

    Raises:
        RecipeError: the channels cannot be shared out over the heads.
    """

    def __init__(self, options: QueryBranchOptions, teacher: Manifest, channels: int) -> None:
        super().__init__()
        if channels % options.heads:
            raise RecipeError(
                f"fd3d's query branch shares the teacher's {channels} channels over {options.heads} heads, which does "
                "not come out even: --set student.training.distillation.fd3d.branch.heads=<a divisor>"
            )
        self.config = _config(options, teacher, channels)
        self.query_embedding = nn.Embedding(options.queries, 2 * channels)
        self.reference_points = nn.Linear(channels, 3)
        nn.init.xavier_uniform_(self.reference_points.weight)
        nn.init.zeros_(self.reference_points.bias)
        self.decoder = Decoder(self.config)
        self.cls_branches = copies(class_branch(channels, len(teacher.class_names)), options.layers)
        self.reg_branches = copies(box_branch(channels), options.layers)
        self.code_weights: Tensor
        self.register_buffer("code_weights", torch.tensor(self.config.loss.code_weights), persistent=False)

    def forward(
        self, teacher: Float32[Tensor, "batch channel rows cols"], student: Float32[Tensor, "batch channel rows cols"]
    ) -> tuple[QueryOutputs, PairedReadings]:
        """Detect on the teacher's map, and read the student's at the same places."""
        position, x = self.query_embedding.weight.expand(len(teacher), -1, -1).chunk(2, dim=-1)
        reference = self.reference_points(position).sigmoid()
        outputs: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        readings: list[tuple[Tensor, Tensor]] = []
        for layer, classify, regress in zip(self.decoder.layers, self.cls_branches, self.reg_branches, strict=True):
            assert isinstance(layer, DecoderLayer)
            x = layer.norms[0](layer.attentions[0](x, position))
            cross = layer.attentions[1]
            assert isinstance(cross, BevCrossAttention)
            places, weights = cross.sampling_places(x, position, reference[..., :2])
            gathered = sample_deformable([project_map(cross.value_proj, teacher)], places, weights)
            readings.append((gathered.detach(), _same_reading(cross, student, places.detach(), weights.detach())))
            x = layer.norms[2](layer.ffns[0](layer.norms[1](cross.with_gathered(x, gathered))))
            moved, boxes = refine(reference, regress(x), self.config.grid)
            outputs.append((x, reference, classify(x), boxes))
            reference = moved.detach()
        features, places_before, logits, boxes_of_layers = (torch.stack(part) for part in zip(*outputs, strict=True))
        positions = torch.cat([places_before, reference[None]])
        pairs = PairedReadings(*(torch.stack(part) for part in zip(*readings, strict=True)))
        return QueryOutputs(features, positions, logits, boxes_of_layers), pairs

    def loss(self, queries: QueryOutputs, annotations: Sequence[Boxes]) -> Float32[Tensor, ""]:
        """Its detection loss, the sum over classes, boxes and layers.

        Raises:
            DataError: an annotation has no box code.
            UserError: predictions are not finite.
        """
        targets = targets_of(annotations, self.config.grid, queries.boxes.device)
        losses = detection_losses(queries, targets, self.code_weights, self.config.loss)
        return torch.stack(list(losses.values())).sum()

    def matched(self, queries: QueryOutputs, annotations: Sequence[Boxes]) -> Bool[Tensor, "batch query"]:
        """Queries of the last layer that an annotated object is assigned to."""
        found = torch.zeros(queries.logits.shape[1:3], dtype=torch.bool, device=queries.logits.device)
        for sample, target in enumerate(targets_of(annotations, self.config.grid, queries.boxes.device)):
            last = queries.logits[-1:, sample].detach(), queries.boxes[-1:, sample].detach()
            ((chosen, _),) = match(*last, target, self.config.loss)
            found[sample, torch.from_numpy(chosen).to(found.device)] = True
        return found


def _same_reading(
    cross: BevCrossAttention,
    bev: Float32[Tensor, "batch channel rows cols"],
    places: Float32[Tensor, "batch query head 1 point 2"],
    weights: Float32[Tensor, "batch query head 1 point"],
) -> Float32[Tensor, "batch query channel"]:
    """Another map read with a layer's projection, which is not taught by it."""
    projection = cross.value_proj
    value = functional.conv2d(bev, projection.weight.detach()[:, :, None, None], projection.bias.detach())
    return sample_deformable([value], places, weights)


def _config(options: QueryBranchOptions, teacher: Manifest, channels: int) -> BEVFormerConfig:
    """The decoder is configured as part of a detector; of the other parts only channels and grid are read."""
    return BEVFormerConfig(
        embed_dims=channels,
        neck=FPNConfig(out_channels=channels),
        encoder=EncoderConfig(heads=1),
        decoder=DecoderConfig(**options.model_dump()),
        grid=teacher.grid,
        preprocessing=teacher.preprocessing,
        class_names=teacher.class_names,
    )
