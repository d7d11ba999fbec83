"""What the three terms of ``unidistill`` mean, and what its options choose."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from train_fakes import bev_spec, boxes_of, detections, exact_targets, grid_of, manifest_of, random_student
from train_world import CPU, SCENES, fill_cache, tiny_config, tiny_detector, tiny_tables

from detectors.config import HeadConfig
from detectors.teacher_features import feature_specs
from schemas.errors import CacheError, RecipeError
from schemas.features import FeatureSpec
from train.crucial_points import crucial_points
from train.distiller_catalogue import DistillationOptions
from train.distillers.base import DistillationSetting, GroundTruth, StudentOutputs
from train.distillers.unidistill import PUBLISHED_WEIGHTS, UniDistiller, UniDistillOptions
from train.loop import train
from train.metrics_log import StepReport
from train.options import TrainOptions
from train.run import TrainingRun, distillers_of
from train.targets import TeacherTargets

GRID = grid_of(16, 16)
CONFIG = tiny_config(16, 16, dims=4)
SPECS = tuple(spec for spec in feature_specs(CONFIG) if spec.name in {"bev", "query_logits", "query_boxes"})
CAR = [12.8 + 3.2, -6.4 + 3.2, -1, 2, 4.6, 1.7, 0.3, 0, 0]
"""In the middle of the cell in row 7, column 10."""


def setting_of(channels: int = 4, *, heatmap: bool = False) -> DistillationSetting:
    return DistillationSetting(GRID, channels, manifest_of(SPECS, GRID), student_heatmap=heatmap)


def targets_of(bev: Tensor, logits: Tensor, boxes: Tensor) -> TeacherTargets:
    """One sample's cached features without rounding."""
    held = {"bev": bev, "query_logits": logits, "query_boxes": boxes}
    specs = {spec.name: spec for spec in SPECS}
    exact = tuple(
        FeatureSpec(name=name, dims=specs[name].dims, shape=tuple(value.shape), encoding="float32", description="x")
        for name, value in held.items()
    )
    stored = {name: value[None, None] for name, value in held.items()}
    return replace(exact_targets(bev[None], GRID), stored=stored, specs=exact)


def student_of(bev: Tensor, heatmap: Tensor | None = None) -> StudentOutputs:
    """One sample of a student."""
    outputs = random_student(CONFIG, 1)
    return replace(outputs, features=replace(outputs.features, bev=bev[None], heatmap=heatmap))


NOTHING = detections(boxes_of([CAR]), [(0, -30.0)])


def test_a_student_like_its_teacher_has_no_error_in_features_and_relations() -> None:
    bev = torch.randn(16, 16, 4)
    distiller = UniDistiller(UniDistillOptions(response_weight=0), setting_of())
    truth = GroundTruth((boxes_of([CAR]),))
    terms = distiller.losses(student_of(bev), targets_of(bev, *NOTHING), truth)
    assert {name: term.item() for name, term in terms.items()} == {"feature": 0, "relation": 0}
    terms = distiller.losses(student_of(3 * bev), targets_of(bev, *NOTHING), truth)
    assert terms["relation"].item() == pytest.approx(0, abs=1e-3)  # cosines know no scale
    assert terms["feature"].item() > 1


def test_nothing_is_learnt_away_from_the_objects() -> None:
    bev = torch.randn(16, 16, 4, requires_grad=True)
    distiller = UniDistiller(UniDistillOptions(), setting_of())
    targets = targets_of(torch.randn(16, 16, 4), *NOTHING)
    terms = distiller.losses(student_of(bev), targets, GroundTruth((boxes_of([CAR]),)))
    torch.stack(list(terms.values())).sum().backward()
    assert bev.grad is not None
    touched = bev.grad.abs().sum(dim=-1) > 0
    rows, cols = (axis.tolist() for axis in torch.nonzero(touched, as_tuple=True))
    assert touched[7, 10]
    assert (min(rows), max(rows), min(cols), max(cols)) == (6, 8, 9, 11)


def test_features_stored_at_the_boxes_are_as_good_as_the_map() -> None:
    bev, truth = torch.randn(16, 16, 4), GroundTruth((boxes_of([CAR, [-51, 3, 0, 2, 4, 1, 0, 0, 0]]),))
    student = student_of(torch.randn(16, 16, 4))
    dense = UniDistiller(UniDistillOptions(response_weight=0), setting_of())
    expected = dense.losses(student, targets_of(bev, *NOTHING), truth)

    stored = torch.zeros(1, 1, 5, 9, 4)
    stored[0, 0, :2] = crucial_points(truth.boxes, GRID, legacy_swap=False).read(bev.movedim(-1, 0)[None])[0]
    dims = ("object", "crucial_point", "channel")
    spec = FeatureSpec(name="object_features", dims=dims, shape=(5, 9, 4), encoding="float32", description="x")
    targets = replace(exact_targets(bev[None], GRID), stored={"object_features": stored}, specs=(spec,))
    options = UniDistillOptions(response_weight=0, source="object_features")
    sparse = UniDistiller(options, DistillationSetting(GRID, 4, manifest_of((spec,), GRID)))
    assert sparse.requires == ("object_features",)
    found = sparse.losses(student, targets, truth)
    assert {name: term.item() for name, term in found.items()} == {name: term.item() for name, term in expected.items()}

    crowd = GroundTruth((boxes_of([CAR] * 6),))
    with pytest.raises(CacheError, match=r"6 annotated objects.*object_features of 5.*made from other annotations"):
        sparse.losses(student, targets, crowd)


def test_the_releases_places_cannot_be_read_from_stored_ones() -> None:
    with pytest.raises(ValidationError, match="use source bev with legacy_swap"):
        UniDistillOptions(source="object_features", legacy_swap=True)


def test_published_weights_by_path() -> None:
    targets, truth = targets_of(torch.randn(16, 16, 4), *NOTHING), GroundTruth((boxes_of([CAR]),))
    student = student_of(torch.randn(16, 16, 4), torch.randn(1, 10, 16, 16))
    found = {
        path: UniDistiller(UniDistillOptions(path=path, heatmap="own"), setting_of(heatmap=True)).losses(
            student, targets, truth
        )
        for path in PUBLISHED_WEIGHTS
    }
    base, base_weights = found["fusion-to-camera"], PUBLISHED_WEIGHTS["fusion-to-camera"]
    assert base_weights == (10, 5, 10)
    for path, weights in PUBLISHED_WEIGHTS.items():
        for term, weight, base_weight in zip(base, weights, base_weights, strict=True):
            assert found[path][term].item() == pytest.approx(base[term].item() * weight / base_weight)


@pytest.mark.parametrize(
    ("left_out", "requires", "terms"),
    [
        ({"response_weight": 0}, ("bev",), {"feature", "relation"}),
        ({"feature_weight": 0, "relation_weight": 0}, ("query_boxes", "query_logits"), {"response"}),
        ({"relation_weight": 0}, ("bev", "query_boxes", "query_logits"), {"feature", "response"}),
    ],
)
def test_a_term_of_weight_zero_is_left_out_with_what_it_reads(
    left_out: dict[str, float], requires: tuple[str, ...], terms: set[str]
) -> None:
    distiller = UniDistiller(UniDistillOptions(**left_out), setting_of())
    targets = targets_of(torch.randn(16, 16, 4), *NOTHING)
    assert distiller.requires == requires
    assert set(distiller.losses(student_of(torch.randn(16, 16, 4)), targets, GroundTruth((boxes_of([CAR]),)))) == terms


def test_no_term_at_all_is_refused() -> None:
    with pytest.raises(ValidationError, match="feature_weight, relation_weight and response_weight are all 0: give"):
        UniDistillOptions(feature_weight=0, relation_weight=0, response_weight=0)


@pytest.mark.parametrize(
    ("channels", "adapter", "projected"),
    [
        (4, "auto", set()),
        (6, "auto", {"feature"}),
        (4, "always", {"feature", "relation"}),
        (6, "always", {"feature", "relation"}),
        (4, "never", set()),
    ],
)
def test_adapters(channels: int, adapter: str, projected: set[str]) -> None:
    distiller = UniDistiller(UniDistillOptions(adapter=adapter), setting_of(channels))
    assert {name for name, module in distiller.adapters.items() if list(module.parameters())} == projected


def test_unequal_channels_without_an_adapter_are_refused() -> None:
    with pytest.raises(
        RecipeError, match=r"student has 6 and the teacher 4.*unidistill.adapter=auto.*unidistill.feature_weight=0"
    ):
        UniDistiller(UniDistillOptions(adapter="never"), setting_of(6))
    UniDistiller(UniDistillOptions(adapter="never", feature_weight=0), setting_of(6))


def test_a_heatmap_of_the_students_own_may_be_what_responds() -> None:
    assert UniDistiller(UniDistillOptions(heatmap="own"), setting_of(heatmap=True)).head is None
    assert UniDistiller(UniDistillOptions(), setting_of(heatmap=True)).head is not None
    assert UniDistiller(UniDistillOptions(heatmap="own"), setting_of()).head is not None

    heatmap = torch.zeros(1, 10, 16, 16, requires_grad=True)
    bev = torch.randn(16, 16, 4, requires_grad=True)
    options = UniDistillOptions(feature_weight=0, relation_weight=0, classes="each", heatmap="own")
    distiller = UniDistiller(options, setting_of(heatmap=True))
    targets = targets_of(torch.randn(16, 16, 4), *detections(boxes_of([CAR]), [(3, 2.0)]))
    (term,) = distiller.losses(student_of(bev, heatmap), targets, GroundTruth((boxes_of([CAR]),))).values()
    term.backward()
    assert heatmap.grad is not None
    assert bev.grad is None
    at_car = heatmap.grad[0, :, 7, 10]
    assert at_car[3] < 0  # more of the teacher's class
    assert all(at_car[other] > 0 for other in range(10) if other != 3)  # less of the others


def test_classes_may_be_told_apart_or_not() -> None:
    targets = targets_of(torch.randn(16, 16, 4), *detections(boxes_of([CAR]), [(3, 2.0)]))

    def error(classes: str, label: int) -> float:
        """Of a student that answers with this class alone."""
        options = UniDistillOptions(feature_weight=0, relation_weight=0, classes=classes, heatmap="own")
        heatmap = torch.full((1, 10, 16, 16), -30.0)
        heatmap[0, label, 7, 10] = 2.0
        student = student_of(torch.randn(16, 16, 4), heatmap)
        distiller = UniDistiller(options, setting_of(heatmap=True))
        (term,) = distiller.losses(student, targets, GroundTruth((boxes_of([CAR]),))).values()
        return term.item()

    assert error("any", 5) == pytest.approx(error("any", 3))
    assert error("each", 5) > 1.5 * error("each", 3)


def test_the_extra_head_learns_the_teachers_response() -> None:
    torch.manual_seed(0)
    options = UniDistillOptions(feature_weight=0, relation_weight=0)
    distiller = UniDistiller(options, setting_of())
    bev = torch.randn(16, 16, 4)
    targets = targets_of(bev, *detections(boxes_of([CAR]), [(0, 4.0)]))
    optimizer = torch.optim.Adam(distiller.parameters(), lr=0.1)
    history = []
    for _ in range(40):
        (term,) = distiller.losses(student_of(bev), targets, GroundTruth((boxes_of([CAR]),))).values()
        optimizer.zero_grad()
        term.backward()
        optimizer.step()
        history.append(term.item())
    assert history[-1] < 0.5 * history[0]


def test_bev_specs_of_other_sizes_fit() -> None:
    manifest = manifest_of((bev_spec(8, 40, 4),), grid_of(8, 40))
    distiller = UniDistiller(UniDistillOptions(response_weight=0), DistillationSetting(GRID, 4, manifest))
    targets = exact_targets(torch.full((1, 8, 40, 4), 2.0), grid_of(8, 40))
    terms = distiller.losses(student_of(torch.ones(16, 16, 4)), targets, GroundTruth((boxes_of([CAR]),)))
    assert terms["feature"].item() == pytest.approx(10, rel=1e-3)
    assert terms["relation"].item() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("heatmap", ["own", "extra"])
def test_a_student_learns_with_its_own_heatmap_or_an_extra_head(heatmap: str, tmp_path: Path) -> None:
    tables = tiny_tables(tmp_path)
    config = tiny_config().model_copy(update={"head": HeadConfig(heatmap_queries=True)})
    run = TrainingRun(
        detector=tiny_detector(config),
        tables=tables,
        scene_names=SCENES,
        cache=fill_cache(tmp_path / "cache", tables),
        options=TrainOptions(
            steps=2,
            batch_size=2,
            distillation=DistillationOptions(names=("unidistill",), unidistill=UniDistillOptions(heatmap=heatmap)),
        ),
        out=tmp_path / "out",
        device=CPU,
    )
    has_head = any("head" in name for name in distillers_of(run).state_dict())
    assert has_head == (heatmap == "extra")
    reports: list[StepReport] = []
    assert train(run, reports.append).finished
    terms = {name: value for name, value in reports[-1].terms.items() if name.startswith("unidistill/")}
    assert set(terms) == {"unidistill/feature", "unidistill/relation", "unidistill/response"}
    assert all(value > 0 for value in terms.values())
