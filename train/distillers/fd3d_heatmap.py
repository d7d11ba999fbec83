"""The released baseline of FD3D: regress the teacher's BEV around the objects.

    L = weight / Σ m · Σ over batch, channel, cell of ( m · ( R(S) − T ) )²

m(p) is the largest Gaussian over the annotated boxes, drawn on a 128×128 grid and enlarged to the teacher's by nearest
neighbour; it multiplies before squaring, so the error is weighted by m². R restores the student's map to the teacher's
size (``train/adapters.py``).

With ``trajectory_frames`` m covers where the objects were before, too: the union of the Gaussians of this and the last
frames' boxes, laid under the supervised frame. A student that fuses its past smears what moves along its way, and
there the teacher's map puts it right. That is the trajectory mask of VCD, whose configuration is ``weight=0.4``,
``normalise_teacher=true`` and as many frames as its student sees.

Source: read in the released code of FD3D (Zeng et al., CVPR 2023; OpenDriveLab/Birds-eye-view-Perception,
nuScenes_playground/FocalDistiller), reproduced to its numbers in ``tests/test_train_distiller_fd3d_golden.py``.
Decided here: a batch without any object has zero loss (the release fails on it); grids that are no power of two apart
are resized; a teacher map coarser than the 128×128 mask takes the mask's largest value under each cell, where nearest
neighbour would miss objects. Of VCD (Huang et al., NeurIPS 2023, "Leveraging Vision-Centric Multi-Modal Expertise for
3D Object Detection") code and abstract were read, not the paper. Its earlier frames are the ones the student was given:
a clip's, fewer at the start of a scene, with a gap where a clip leaves one out. Processes that train together
normalise the teacher each over its own batch.
"""

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from detectors.detection_loss import mean_over_ranks
from schemas.bev_grid import BevGrid
from train.adapters import Restore
from train.distillers.base import DistillationSetting, Distiller, GroundTruth, StudentOutputs, teacher_bev
from train.heatmap import object_heatmap
from train.targets import TeacherTargets


class FD3DHeatmapOptions(BaseModel):
    """Options of ``fd3d-heatmap``, with the released values.

    Attributes:
        weight: of the loss.
        mask_cells: rows and columns of the grid that the Gaussians are drawn on.
        min_overlap: sizes the Gaussians (``train/heatmap.py``).
        min_radius_cells: their smallest radius.
        normalise_teacher: standardise each teacher channel over the batch first; off in the release's configuration.
        trajectory_frames: earlier frames whose objects count as well.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(default=0.1, ge=0)
    mask_cells: int = Field(default=128, ge=1)
    min_overlap: float = Field(default=0.1, gt=0, lt=1)
    min_radius_cells: int = Field(default=2, ge=0)
    normalise_teacher: bool = False
    trajectory_frames: int = Field(default=0, ge=0)


class FD3DHeatmapDistiller(Distiller):
    """Squared error between BEV features, under Gaussians at the annotated boxes."""

    requires = ("bev",)

    def __init__(self, options: FD3DHeatmapOptions, setting: DistillationSetting) -> None:
        super().__init__()
        self.options = options
        self.restore = Restore(
            student=(setting.student_channels, *setting.student_grid.shape),
            teacher=(setting.teacher_feature("bev").shape[-1], *setting.teacher.grid.shape),
        )

    def losses(self, student: StudentOutputs, teacher: TeacherTargets, targets: GroundTruth) -> dict[str, Tensor]:
        """One term, ``bev``."""
        restored = self.restore(student.bev)
        target = teacher_bev(teacher)
        if self.options.normalise_teacher:
            target = functional.batch_norm(target, None, None, training=True)
        mask = self.mask(targets, teacher.grid).to(target)
        error = (mask * (restored - target)).square().sum()
        return {"bev": self.options.weight * error / mean_over_ranks(mask.sum()).clamp(min=1e-6)}

    def mask(self, targets: GroundTruth, grid: BevGrid) -> Float[Tensor, "batch 1 rows cols"]:
        """The objects' Gaussians on the teacher's grid; those of earlier frames too, as far as is asked for."""
        drawing = grid.model_copy(update={"rows": self.options.mask_cells, "cols": self.options.mask_cells})
        options = self.options
        past = targets.past or ((),) * len(targets.boxes)
        maps = [
            np.maximum.reduce(
                [
                    object_heatmap(boxes, drawing, options.min_overlap, options.min_radius_cells)
                    for boxes in (current, *earlier[: options.trajectory_frames])
                ]
            )
            for current, earlier in zip(targets.boxes, past, strict=True)
        ]
        drawn = torch.from_numpy(np.stack(maps))[:, None]
        if min(grid.shape) >= options.mask_cells:
            return functional.interpolate(drawn, grid.shape, mode="nearest")
        return functional.adaptive_max_pool2d(drawn, grid.shape)
