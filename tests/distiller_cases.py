"""Every distiller with the settings that choose another course, and what they are tried on."""

from train_fakes import bev_spec, boxes_of, manifest_of, stored_targets
from train_world import tiny_config

from detectors.config import BEVFormerConfig
from detectors.teacher_features import feature_specs
from schemas.features import FeatureSpec, Tier
from train.distiller_catalogue import DISTILLERS, DistillationOptions, DistillerSet
from train.distillers.base import DistillationSetting
from train.distillers.fd3d import FD3DOptions
from train.distillers.pkd import PKDOptions
from train.distillers.structured_kd import StructuredKDOptions
from train.distillers.tempdistiller import TempDistillerOptions
from train.distillers.unidistill import UniDistillOptions
from train.query_branch import QueryBranchOptions
from train.targets import TeacherTargets

BOXES = boxes_of([[10, 5, -1, 2, 4.6, 1.7, 0.3, 1, 0], [-30, -12, -1, 2.9, 12, 3.8, 1.2, 3, 3]])
NO_BOXES = boxes_of([])
TEACHER = tiny_config(rows=12, cols=10, dims=6)
TEMPORAL_TARGET = bev_spec(*TEACHER.grid.shape, TEACHER.embed_dims).model_copy(update={"name": "temporal_target"})
OBJECT_FEATURES = FeatureSpec(
    name="object_features",
    dims=("object", "crucial_point", "channel"),
    shape=(5, 9, TEACHER.embed_dims),
    encoding="affine",
    scale_dims=("channel",),
    description="BEV features at boxes.",
)
SPECS: tuple[FeatureSpec, ...] = (*feature_specs(TEACHER), TEMPORAL_TARGET, OBJECT_FEATURES)
STUDENT = tiny_config(rows=6, cols=5, dims=4)

LEARNING = {
    **{name: DistillationOptions(names=(name,)) for name in DISTILLERS if name != "none"},
    "fd3d, learned queries": DistillationOptions(
        names=("fd3d",),
        fd3d=FD3DOptions(query_source="learned", branch=QueryBranchOptions(queries=8, layers=2, heads=2)),
    ),
    "fd3d, no queries": DistillationOptions(names=("fd3d",), fd3d=FD3DOptions(query_source="none")),
    "pkd, always adapted": DistillationOptions(names=("pkd",), pkd=PKDOptions(adapter="always", grid="teacher")),
    "structured-kd, nearest queries": DistillationOptions(
        names=("structured-kd",),
        structured_kd=StructuredKDOptions(decoder="nearest", reach_m=200, response="channel", adapter="always"),
    ),
    "tempdistiller, queries": DistillationOptions(
        names=("tempdistiller",), tempdistiller=TempDistillerOptions(mode="query")
    ),
    "tempdistiller, cached target": DistillationOptions(
        names=("tempdistiller",), tempdistiller=TempDistillerOptions(target="temporal_target", loss_on="masked")
    ),
    "unidistill, always adapted": DistillationOptions(
        names=("unidistill",), unidistill=UniDistillOptions(adapter="always", legacy_swap=True, classes="each")
    ),
    "unidistill, objects alone": DistillationOptions(
        names=("unidistill",), unidistill=UniDistillOptions(source="object_features")
    ),
}
"""Every distiller as it comes, and those again whose options choose another course."""


def setting_of(student: BEVFormerConfig = STUDENT, tier: Tier = "int8") -> DistillationSetting:
    return DistillationSetting(
        student_grid=student.grid,
        student_channels=student.embed_dims,
        teacher=manifest_of(SPECS, TEACHER.grid, tier),
        student_queries=student.decoder.queries,
        student_temporal=(student.encoder.heads, student.encoder.temporal_points),
    )


def targets_for(distillers: DistillerSet, batch: int = 2, tier: Tier = "int8") -> TeacherTargets:
    """What a stream would give these distillers: the features they require and no other."""
    specs = tuple(spec for spec in SPECS if spec.name in distillers.requires)
    return stored_targets(specs, TEACHER.grid, batch, distillers.teacher_frames, tier)
