"""``structured-kd``: what its terms mean on maps and queries whose answers are known."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from train_fakes import at_scene_start, grid_of, manifest_of, random_student, stored_targets
from train_world import tiny_config

from detectors.config import BEVFormerConfig, LossConfig
from detectors.teacher_features import feature_specs
from schemas.errors import RecipeError
from train.distillers.base import DistillationSetting, GroundTruth, StudentOutputs
from train.distillers.structured_kd import StructuredKDDistiller, StructuredKDOptions
from train.spatial_softmax import spatial_divergence
from train.targets import TeacherTargets

CONFIG = tiny_config(rows=6, cols=5, dims=4)
SPECS = feature_specs(CONFIG)
NO_TRUTH = GroundTruth(())


def setting_of(config: BEVFormerConfig = CONFIG, **shared: bool) -> DistillationSetting:
    return DistillationSetting(
        student_grid=config.grid,
        student_channels=config.embed_dims,
        teacher=manifest_of(SPECS, CONFIG.grid),
        student_queries=config.decoder.queries,
        **shared,
    )


INHERITED = setting_of(shares_decoder=True, shares_queries=True)


def targets_of(frames: int = 2, batch: int = 1) -> TeacherTargets:
    """float32 arrays are not stored so in any tier, but exact ones make exact tests."""
    exact = tuple(
        spec.model_copy(update={"encoding": "float32", "scale_dims": (), "scale_name": None}) for spec in SPECS
    )
    return stored_targets(exact, CONFIG.grid, batch, frames)


def losses(
    student: StudentOutputs, teacher: TeacherTargets, setting: DistillationSetting = INHERITED, **options: object
) -> dict[str, Tensor]:
    distiller = StructuredKDDistiller(StructuredKDOptions.model_validate({"response_weight": 1} | options), setting)
    return distiller.losses(student, teacher, NO_TRUTH)


def twin(teacher: TeacherTargets) -> StudentOutputs:
    """A student that sees, remembers and finds what the teacher does."""
    student = random_student(CONFIG, len(teacher.valid))
    queries = replace(
        student.features.queries,
        logits=teacher.current("query_logits")[None].clone().requires_grad_(),
        boxes=teacher.current("query_boxes")[None].clone().requires_grad_(),
    )
    features = replace(student.features, bev=teacher.current("bev").clone().requires_grad_(), queries=queries)
    assert student.previous is not None
    previous = replace(student.previous, bev=teacher.frame("bev", -2).flatten(1, 2))
    return replace(student, features=features, previous=previous)


def test_a_twin_of_the_teacher_has_nothing_to_learn() -> None:
    teacher = targets_of(batch=2)
    terms = losses(twin(teacher), teacher)
    assert set(terms) == {"spatial", "temporal", "response", "class", "box"}
    for name, value in terms.items():
        assert value.item() == pytest.approx(0, abs=1e-6), name


def test_spatial_is_the_mean_square() -> None:
    teacher = targets_of()
    student = twin(teacher)
    moved = replace(student, features=replace(student.features, bev=(student.features.bev.detach() + 0.5)))
    assert losses(moved, teacher)["spatial"].item() == pytest.approx(0.25)
    assert losses(moved, teacher, spatial_weight=3)["spatial"].item() == pytest.approx(0.75)


def test_temporal_compares_what_changed_and_not_what_is() -> None:
    teacher = targets_of()
    student = twin(teacher)
    assert student.previous is not None
    # The whole past and present a step higher: another map, the same change.
    shifted = replace(
        student,
        features=replace(student.features, bev=student.features.bev.detach() + 2),
        previous=replace(student.previous, bev=student.previous.bev + 2),
    )
    assert losses(shifted, teacher)["temporal"].item() == pytest.approx(0, abs=1e-6)
    assert losses(shifted, teacher)["spatial"].item() == pytest.approx(4)
    now_only = replace(shifted, previous=student.previous)
    assert losses(now_only, teacher)["temporal"].item() == pytest.approx(4)


def test_temporal_counts_only_ground_that_the_past_covers() -> None:
    teacher = targets_of()
    student = twin(teacher)
    expected = losses(student, teacher)["temporal"].item()
    # The car drove 30 m forward: the cells of the front row were not on the earlier map.
    motion = teacher.previous_from_current.clone()
    motion[..., 1, 3] = 30.0
    driven = replace(teacher, previous_from_current=motion)
    front = torch.zeros(1, *CONFIG.grid.shape, 4)
    front[:, -1] = 100
    seen = replace(student, features=replace(student.features, bev=student.features.bev.detach() + front))
    assert losses(seen, driven)["temporal"].item() == pytest.approx(expected, abs=1e-6)
    assert losses(seen, driven)["spatial"].item() > 100


@pytest.mark.parametrize("why", ["no memory", "not the neighbour", "start of the scene"])
def test_temporal_is_silent_without_a_common_past(why: str) -> None:
    teacher = targets_of()
    student = random_student(CONFIG, 1)
    if why == "no memory":
        student = random_student(CONFIG, 1, history=False)
    elif why == "not the neighbour":
        student = replace(student, previous_is_adjacent=torch.tensor([False]))
    else:
        teacher = at_scene_start(teacher)
    terms = losses(student, teacher, adapter="always")
    assert terms["temporal"].item() == 0
    terms["temporal"].backward()  # still part of the graph: every rank must know the same parameters


def test_response_does_not_hear_a_strength_that_is_the_same_everywhere() -> None:
    teacher = targets_of()
    student = twin(teacher)
    magnitude = student.features.bev.detach().abs() + 1
    louder = replace(student, features=replace(student.features, bev=magnitude))
    teacher_abs = replace(
        teacher, stored=dict(teacher.stored) | {"bev": (magnitude - 0.5)[:, None].repeat(1, 2, 1, 1, 1)}
    )
    assert losses(louder, teacher_abs)["response"].item() == pytest.approx(0, abs=1e-6)
    # ... nor how far apart the strengths of both lie, as long as they do alike: a LayerNorm leaves them hundredths.
    fainter = replace(student, features=replace(student.features, bev=1 + 0.01 * magnitude + 0.5))
    stored = {"bev": (1 + 0.01 * magnitude)[:, None].repeat(1, 2, 1, 1, 1)}
    teacher_fainter = replace(teacher, stored=dict(teacher.stored) | stored)
    assert losses(fainter, teacher_fainter)["response"].item() == pytest.approx(0, abs=1e-5)
    other = replace(student, features=replace(student.features, bev=1 + 0.01 * magnitude.flip(1)))
    far = replace(student, features=replace(student.features, bev=magnitude.flip(1)))
    faint = losses(other, teacher_fainter)["response"].item()
    assert faint == pytest.approx(losses(far, teacher_abs)["response"].item(), rel=1e-2)
    assert faint > 0.1
    peak = magnitude.clone()
    peak[:, 2, 3] += 3
    assert losses(replace(student, features=replace(student.features, bev=peak)), teacher_abs)["response"].item() > 1e-3


def test_divergence_is_the_definition() -> None:
    student, teacher = torch.randn(2, 3, 7, requires_grad=True), torch.randn(2, 3, 7)
    p, q = (teacher / 0.5).softmax(-1), (student / 0.5).softmax(-1)
    expected = 0.25 * (p * (p / q).log()).sum(-1).mean()
    assert spatial_divergence(student, teacher, 0.5).item() == pytest.approx(expected.item(), rel=1e-5)
    assert spatial_divergence(teacher, teacher, 0.5).item() == pytest.approx(0, abs=1e-7)


def test_decoder_responses_by_number() -> None:
    teacher = targets_of()
    student = twin(teacher)
    queries, count = student.features.queries, CONFIG.decoder.queries
    off = torch.zeros(1, 1, count, 10)
    off[0, 0, 4, 9] = 2.0  # m/s, which the code weights count at a fifth
    shifted = replace(queries, boxes=queries.boxes.detach() + off)
    terms = losses(replace(student, features=replace(student.features, queries=shifted)), teacher)
    scores = teacher.current("query_logits").sigmoid().amax(-1)
    weight = LossConfig().code_weights[9]
    expected = 0.5 * 0.25 * scores[0, 4] * 2.0 * weight / scores.sum()
    assert terms["box"].item() == pytest.approx(expected.item(), rel=1e-4)

    logits = queries.logits.detach().clone()
    logits[0, 0, 4, 2] += 1.5
    surer = replace(queries, logits=logits.requires_grad_())
    terms = losses(replace(student, features=replace(student.features, queries=surer)), teacher)
    p, q = teacher.current("query_logits")[0, 4, 2].sigmoid(), logits[0, 0, 4, 2].sigmoid()
    divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    assert terms["class"].item() == pytest.approx((0.5 * divergence / scores.sum()).item(), rel=1e-4)
    terms["class"].backward()
    assert logits.grad is not None
    assert logits.grad[0, 0, 4, 2] == pytest.approx((0.5 * (q - p) / scores.sum()).item(), rel=1e-4)


def test_decoder_responses_by_place() -> None:
    teacher = targets_of()
    places = torch.linspace(-50, 50, CONFIG.decoder.queries)
    boxes = teacher.stored["query_boxes"].clone()
    boxes[..., 0] = places
    teacher = replace(teacher, stored=dict(teacher.stored) | {"query_boxes": boxes})
    student = twin(teacher)
    order = torch.randperm(CONFIG.decoder.queries)
    queries = student.features.queries
    mixed = replace(queries, logits=queries.logits.detach()[:, :, order], boxes=queries.boxes.detach()[:, :, order])
    shuffled = replace(student, features=replace(student.features, queries=mixed))
    by_place = losses(shuffled, teacher, setting_of(), decoder="nearest", adapter="always")
    by_number = losses(shuffled, teacher)
    assert (by_place["class"].item(), by_place["box"].item()) == pytest.approx((0, 0), abs=1e-6)
    assert by_number["box"].item() > 1
    gone = replace(mixed, boxes=mixed.boxes + 1000)
    far = losses(replace(student, features=replace(student.features, queries=gone)), teacher, decoder="nearest")
    assert (far["class"].item(), far["box"].item()) == (0, 0)


def test_auto_compares_queries_only_where_numbers_mean_something() -> None:
    def holds(setting: DistillationSetting, **options: object) -> bool:
        distiller = StructuredKDDistiller(StructuredKDOptions.model_validate(options), setting)
        assert ("query_logits" in distiller.requires) == (distiller.pairing != "off")
        return distiller.holds_queries

    fewer = CONFIG.model_copy(update={"decoder": CONFIG.decoder.model_copy(update={"queries": 7})})
    assert holds(INHERITED)
    assert not holds(setting_of())
    assert not holds(setting_of(fewer, shares_queries=True))
    assert not holds(INHERITED, decoder="off")
    assert not holds(INHERITED, decoder="nearest")
    with pytest.raises(RecipeError, match=r"teacher has 12 queries, the student 12, not inherited.*decoder=nearest"):
        holds(setting_of(), decoder="index")
    with pytest.raises(RecipeError, match=r"teacher has 12 queries, the student 7\. Inherit them"):
        holds(setting_of(fewer, shares_queries=True), decoder="index")


def test_channels_are_projected_unless_the_decoder_is_shared() -> None:
    plain = StructuredKDDistiller(StructuredKDOptions(), setting_of())
    shared = StructuredKDDistiller(StructuredKDOptions(), INHERITED)
    wide = tiny_config(rows=6, cols=5, dims=8)
    assert len(list(plain.parameters())) == 3
    assert list(shared.parameters()) == []
    assert (
        len(list(StructuredKDDistiller(StructuredKDOptions(), setting_of(wide, shares_decoder=True)).parameters())) == 3
    )


def test_without_a_temporal_term_one_frame_is_read() -> None:
    distiller = StructuredKDDistiller(StructuredKDOptions(temporal_weight=0), setting_of())
    assert (distiller.teacher_frames, distiller.requires) == (1, ("bev",))
    terms = distiller.losses(random_student(CONFIG, 1), targets_of(frames=1), NO_TRUTH)
    assert set(terms) == {"spatial", "response"}


def test_grids_are_the_students() -> None:
    coarse = tiny_config(rows=3, cols=5, dims=4)
    teacher = targets_of()
    bev = teacher.current("bev")
    average = (bev[:, 0::2] + bev[:, 1::2]) / 2
    student = random_student(coarse, 1)
    same = replace(student, features=replace(student.features, bev=average))
    assert coarse.grid == grid_of(3, 5)
    assert losses(same, teacher, setting_of(coarse, shares_decoder=True))["spatial"].item() == pytest.approx(
        0, abs=1e-6
    )
