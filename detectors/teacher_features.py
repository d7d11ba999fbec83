"""What a BEVFormer teacher has to teach: the features worth caching, and how exactly each must be kept."""

from torch import Tensor

from detectors.config import BOX_CODE_LENGTH, BEVFormerConfig
from detectors.outputs import DetectorFeatures
from detectors.temporal_self_attention import SOURCES
from schemas.features import FeatureSpec


def feature_specs(config: BEVFormerConfig) -> tuple[FeatureSpec, ...]:
    """Specs of everything ``cacheable`` gives."""
    return (_bev(config), *_temporal(config), *_queries(config))


def cacheable(features: DetectorFeatures, index: int) -> dict[str, Tensor]:
    """One sample's features by spec name; of the decoder's layers the last, of its references all."""
    queries, temporal = features.queries, features.temporal
    return {
        "bev": features.bev[index],
        "temporal_offsets": temporal.offsets[index],
        "temporal_weights": temporal.weights[index],
        "query_features": queries.features[-1, index],
        "query_positions": queries.positions[:, index],
        "query_logits": queries.logits[-1, index],
        "query_boxes": queries.boxes[-1, index],
    }


def _bev(config: BEVFormerConfig) -> FeatureSpec:
    return FeatureSpec(
        name="bev",
        dims=("y", "x", "channel"),
        shape=(*config.grid.shape, config.embed_dims),
        encoding="affine",
        scale_dims=("channel",),
        description="Final BEV features; y forward, x right, LiDAR frame of the keyframe.",
    )


def _temporal(config: BEVFormerConfig) -> tuple[FeatureSpec, FeatureSpec]:
    dims = ("y", "x", "head", "source", "point")
    shape = (*config.grid.shape, config.encoder.heads, SOURCES, config.encoder.temporal_points)
    offsets = FeatureSpec(
        name="temporal_offsets",
        dims=(*dims, "axis"),
        shape=(*shape, 2),
        encoding="symmetric",
        scale_dims=("head", "source", "point", "axis"),
        scale_name="temporal_scale",
        units="BEV cells (x, y) from the reference point",
        description="Sampling offsets of the last encoder layer's temporal self-attention; source 0 is the previous"
        " BEV, 1 the current one; on a scene's first frame both sources are the current BEV.",
    )
    weights = FeatureSpec(
        name="temporal_weights",
        dims=dims,
        shape=shape,
        encoding="unit",
        description="Attention weights of temporal_offsets; they sum to one over the points of each head and source.",
    )
    return offsets, weights


def _queries(config: BEVFormerConfig) -> tuple[FeatureSpec, ...]:
    count = config.decoder.queries
    return (
        FeatureSpec(
            name="query_features",
            dims=("query", "channel"),
            shape=(count, config.embed_dims),
            encoding="float16",
            description="Object queries after the last decoder layer.",
        ),
        FeatureSpec(
            name="query_positions",
            dims=("reference", "query", "xyz"),
            shape=(config.decoder.layers + 1, count, 3),
            encoding="float32",
            units="fraction of the BEV extent",
            description="Reference points: the initial ones, then as refined by each decoder layer.",
        ),
        FeatureSpec(
            name="query_logits",
            dims=("query", "class"),
            shape=(count, len(config.class_names)),
            encoding="float16",
            description="Class logits of the last decoder layer.",
        ),
        FeatureSpec(
            name="query_boxes",
            dims=("query", "code"),
            shape=(count, BOX_CODE_LENGTH),
            encoding="float32",
            units="m, log m, 1, m/s",
            description="Boxes of the last decoder layer: cx, cy, log w, log l, cz, log h, sin yaw, cos yaw, vx, vy.",
        ),
    )
