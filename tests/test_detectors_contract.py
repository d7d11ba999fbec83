"""What every detector of the catalogue promises, at sizes a test can afford."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from detectors.bevformer import BEVFormer
from detectors.box_code import VELOCITY
from detectors.catalogue import DETECTORS, build
from detectors.config import BEVFormerConfig, ResNetConfig
from detectors.inputs import CameraBatch
from detectors.outputs import DetectorFeatures, QueryOutputs, TemporalAttention, TemporalState
from schemas.boxes import Boxes, empty_boxes

IMAGE_HW = (32, 64)


def miniature(config: BEVFormerConfig) -> BEVFormerConfig:
    """The same kind of detector with few cells, channels, layers and queries."""
    backbone = config.backbone
    if isinstance(backbone, ResNetConfig):
        backbone = backbone.model_copy(update={"depth": 50})
    return config.model_copy(
        update={
            "embed_dims": 32,
            "backbone": backbone,
            "neck": config.neck.model_copy(update={"out_channels": 32}),
            "encoder": config.encoder.model_copy(update={"layers": 2, "ffn_channels": 64}),
            "decoder": config.decoder.model_copy(update={"layers": 2, "queries": 30, "ffn_channels": 64}),
            "grid": config.grid.model_copy(update={"rows": 8, "cols": 10}),
        }
    )


@pytest.fixture(scope="module", params=sorted(DETECTORS))
def detector(request: pytest.FixtureRequest) -> BEVFormer:
    torch.manual_seed(1)
    built = build(miniature(DETECTORS[request.param]()))
    # Freshly initialised offsets are alike everywhere; small noise makes every module's output matter.
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return built.eval()


def frames(tokens: tuple[str, ...], seed: int = 0) -> CameraBatch:
    """Random images through six cameras that look all around."""
    random = torch.Generator().manual_seed(seed)
    count = len(tokens)
    can_bus = torch.randn(count, 18, generator=random, dtype=torch.float64)
    can_bus[:, 17] = torch.rad2deg(can_bus[:, 16])
    return CameraBatch(
        images=torch.randn(count, 6, 3, *IMAGE_HW, generator=random),
        image_from_lidar=_around().expand(count, 6, 4, 4).contiguous(),
        can_bus=can_bus,
        scene_tokens=tokens,
    )


def annotations() -> Boxes:
    """Three objects on the map."""
    return Boxes(
        center_m=np.array([[5.0, 6, 0], [-7, 20, 1], [12, -11, -1]]),
        size_wlh_m=np.array([[1.9, 4.5, 1.6], [0.7, 0.7, 1.8], [2.5, 7, 3]]),
        yaw_rad=np.array([0.3, -1.2, 2.9]),
        velocity_mps=np.array([[1.0, 0], [0, 0], [-3, 2]]),
        has_velocity=np.ones(3, dtype=np.bool_),
        labels=np.array([0, 8, 1]),
    )


@torch.no_grad()
def test_cacheable_features_are_as_specified(detector: BEVFormer) -> None:
    features, _ = detector.features(frames(("a", "b")), None)
    specs = {spec.name: spec for spec in detector.feature_specs()}
    cached = detector.cacheable(features, 1)
    assert list(cached) == list(specs)
    for name, values in cached.items():
        assert tuple(values.shape) == specs[name].shape, name
        assert values.isfinite().all(), name
    weights = cached["temporal_weights"]
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    assert torch.equal(cached["query_boxes"], features.queries.boxes[-1, 1])
    assert torch.equal(cached["query_positions"][0], features.queries.positions[0, 1])


@torch.no_grad()
def test_the_same_call_twice_gives_the_same(detector: BEVFormer) -> None:
    _, state = detector.features(frames(("a",), seed=1), None)
    kept = state.bev.clone()
    first, after_first = detector.features(frames(("a",), seed=2), state)
    second, after_second = detector.features(frames(("a",), seed=2), state)
    assert torch.equal(state.bev, kept)
    for one, other in zip(_tensors(first), _tensors(second), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(after_first.bev, after_second.bev)


@torch.no_grad()
def test_history_matters(detector: BEVFormer) -> None:
    _, state = detector.features(frames(("a",), seed=1), None)
    with_history, _ = detector.features(frames(("a",), seed=2), state)
    without, _ = detector.features(frames(("a",), seed=2), None)
    of_another_scene, _ = detector.features(frames(("b",), seed=2), state)
    assert (with_history.bev - without.bev).abs().max() > 1e-3
    assert torch.equal(of_another_scene.bev, without.bev)


@torch.no_grad()
def test_samples_of_a_batch_do_not_see_each_other(detector: BEVFormer) -> None:
    _, state = detector.features(frames(("a", "b", "c"), seed=1), None)
    batch = frames(("a", "x", "c"), seed=2)
    together, after = detector.features(batch, state)
    for index in range(3):
        alone, after_alone = detector.features(_sample(batch, index), _state_sample(state, index))
        torch.testing.assert_close(together.bev[index, None], alone.bev, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.queries.logits[:, index, None], alone.queries.logits, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(together.queries.boxes[:, index, None], alone.queries.boxes, atol=1e-2, rtol=1e-3)
        torch.testing.assert_close(after.bev[index, None], after_alone.bev, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_encoding_history_gives_the_state_of_features(detector: BEVFormer) -> None:
    batch = frames(("a",))
    _, state = detector.features(batch, None)
    encoded = detector.encode(batch, None)
    assert torch.equal(encoded.bev, state.bev)
    assert torch.equal(encoded.position_m, batch.can_bus[:, :3])
    assert torch.equal(encoded.yaw_deg, batch.can_bus[:, 17])
    assert encoded.scene_tokens == ("a",)


@torch.no_grad()
def test_detections_are_valid(detector: BEVFormer) -> None:
    features, _ = detector.features(frames(("a", "b")), None)
    for boxes in detector.decode(features):
        assert boxes.scores is not None
        assert 0 < len(boxes) <= 300
        assert (np.diff(boxes.scores) <= 0).all()
        assert ((boxes.scores >= 0) & (boxes.scores <= 1)).all()
        assert (boxes.size_wlh_m > 0).all()
        assert ((boxes.labels >= 0) & (boxes.labels < 10)).all()
        assert (np.abs(boxes.yaw_rad) <= np.pi).all()


def test_losses_are_finite_and_reach_every_trained_parameter(detector: BEVFormer) -> None:
    detector.train()
    try:
        with torch.no_grad():
            state = detector.encode(frames(("a", "b"), seed=1), None)
        features, after = detector.features(frames(("a", "c"), seed=2), state)
        losses = detector.losses(features, [annotations(), empty_boxes()])
        assert {"loss_cls", "loss_bbox", "d0.loss_cls", "d0.loss_bbox"} <= set(losses)
        assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
        assert not after.bev.requires_grad
        torch.stack(list(losses.values())).sum().backward()
        trained = {name: value for name, value in detector.named_parameters() if value.requires_grad}
        assert [name for name, value in trained.items() if value.grad is None] == []
        assert all(value.grad is not None and value.grad.isfinite().all() for value in trained.values())
    finally:
        detector.zero_grad()
        detector.eval()


def test_velocity_is_taught_without_history_only_where_that_is_asked_for(detector: BEVFormer) -> None:
    with torch.no_grad():
        features, _ = detector.features(frames(("a", "b"), seed=2), detector.encode(frames(("a", "x"), seed=1), None))
    assert features.has_history.tolist() == [True, False]
    boxes = features.queries.boxes.detach().requires_grad_()
    learning = replace(features, queries=replace(features.queries, boxes=boxes))
    losses = detector.losses(learning, [annotations(), annotations()])
    torch.stack(list(losses.values())).sum().backward()
    assert boxes.grad is not None
    with_history, without = boxes.grad[..., VELOCITY].abs().sum(dim=(0, 2, 3)).tolist()
    assert with_history > 0
    assert (without > 0) != detector.config.loss.velocity_needs_history
    assert boxes.grad[:, 1, :, :8].any()


def _around() -> Tensor:
    """(1, 6, 4, 4): cameras at the origin, 60° apart, 90° wide."""
    height, width = IMAGE_HW
    intrinsics = torch.tensor([[width / 2, 0, width / 2], [0, width / 2, height / 2], [0, 0, 1]])
    matrices = []
    for angle in (torch.arange(6) * torch.pi / 3).tolist():
        cos, sin = np.cos(angle), np.sin(angle)
        rotation = torch.tensor([[cos, -sin, 0], [0, 0, -1], [sin, cos, 0]], dtype=torch.float32)
        matrix = torch.eye(4)
        matrix[:3, :3] = intrinsics @ rotation
        matrices.append(matrix)
    return torch.stack(matrices)[None]


def _tensors(features: DetectorFeatures) -> list[Tensor]:
    parts: list[Tensor] = []
    for field in fields(features):
        value = getattr(features, field.name)
        if isinstance(value, QueryOutputs | TemporalAttention):
            parts += [getattr(value, inner.name) for inner in fields(value)]
        elif value is not None:
            parts.append(value)
    return parts


def _sample(batch: CameraBatch, index: int) -> CameraBatch:
    chosen = slice(index, index + 1)
    return CameraBatch(
        batch.images[chosen], batch.image_from_lidar[chosen], batch.can_bus[chosen], batch.scene_tokens[chosen]
    )


def _state_sample(state: TemporalState, index: int) -> TemporalState:
    chosen = slice(index, index + 1)
    return TemporalState(state.bev[chosen], state.position_m[chosen], state.yaw_deg[chosen], state.scene_tokens[chosen])
