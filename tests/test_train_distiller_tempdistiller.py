"""``tempdistiller``: the target is what the past says, exactly where that can be said exactly."""

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from train_fakes import at_scene_start, bev_spec, grid_of, manifest_of, random_student, stored_targets
from train_world import tiny_config

from detectors.teacher_features import feature_specs
from schemas.errors import CacheError, RecipeError
from schemas.features import FeatureSpec
from schemas.temporal_fusion import TemporalFusion
from train.distillers.base import DistillationSetting, Distiller, GroundTruth, StudentOutputs
from train.distillers.generator import kept
from train.distillers.tempdistiller import (
    BevTempDistiller,
    QueryTempDistiller,
    TempDistillerOptions,
    build_tempdistiller,
)
from train.targets import TeacherTargets

GRID = grid_of(8, 4)
CELL_FORWARD_M = GRID.cell_m[1]
CHANNELS = 6
CONFIG = tiny_config(rows=8, cols=4, dims=CHANNELS)
PLAIN = TempDistillerOptions(mask_ratio=0, relation_weight=0)
ANNOTATIONS = GroundTruth(())


def exact(spec: FeatureSpec) -> FeatureSpec:
    """The same feature, kept as it is."""
    return spec.model_copy(update={"encoding": "float32", "scale_dims": (), "scale_name": ""})


BEV = exact(bev_spec(*GRID.shape, CHANNELS))
TARGET = BEV.model_copy(update={"name": "temporal_target"})
SPECS = (BEV, TARGET, *feature_specs(CONFIG)[1:])


def build(options: TempDistillerOptions, config=CONFIG, *, inherited: bool = True) -> Distiller:
    setting = DistillationSetting(
        config.grid,
        config.embed_dims,
        manifest_of(SPECS, GRID),
        student_queries=config.decoder.queries,
        shares_queries=inherited,
    )
    return build_tempdistiller(options, setting)


def transparent(distiller: Distiller) -> Distiller:
    """The distiller with an adapter and a generator that pass features on as they are."""
    assert isinstance(distiller, BevTempDistiller | QueryTempDistiller)
    distiller.rebuild.adapter, distiller.rebuild.generator = nn.Identity(), nn.Identity()
    return distiller


def window(maps: list[Tensor], forward_m: float) -> TeacherTargets:
    """Cached maps ``(rows, cols, channel)`` of a car that drove this far forward between any two of them."""
    targets = stored_targets((BEV,), GRID, batch=1, frames=len(maps))
    motion = targets.previous_from_current.clone()
    motion[..., 1, 3] = forward_m
    return replace(targets, stored={"bev": torch.stack(maps)[None]}, previous_from_current=motion)


def seeing(bev: Tensor, previous: Tensor | None = None) -> StudentOutputs:
    """A student that made this map ``(rows, cols, channel)``, after that one of the keyframe before."""
    student = random_student(CONFIG, 1, history=previous is not None)
    features = replace(student.features, bev=bev[None].clone().requires_grad_())
    memory = student.previous
    if memory is not None and previous is not None:
        memory = replace(memory, bev=previous.flatten(0, 1)[None])
    return replace(student, features=features, previous=memory)


def one_hot(row: int, col: int) -> Tensor:
    bev = torch.zeros(*GRID.shape, CHANNELS)
    bev[row, col] = 3.0
    return bev


def loss(distiller: Distiller, student: StudentOutputs, teacher: TeacherTargets, term: str = "reconstruction") -> float:
    return distiller.losses(student, teacher, ANNOTATIONS)[term].item()


def test_what_stood_still_is_seen_where_it_is_now() -> None:
    # The object stays, the car drives one row forward a frame: on the map the object comes one row nearer each time.
    maps = [one_hot(row, 2) for row in (6, 5, 4)]
    distiller = transparent(build(PLAIN.model_copy(update={"frames": 3})))
    assert loss(distiller, seeing(one_hot(4, 2)), window(maps, CELL_FORWARD_M)) == pytest.approx(0, abs=1e-9)
    assert loss(distiller, seeing(one_hot(4, 2)), window(maps, -CELL_FORWARD_M)) > 1e-3
    assert loss(distiller, seeing(one_hot(4, 2)), window(maps, 0.0)) > 1e-3


def test_what_only_the_past_saw_is_part_of_the_target() -> None:
    maps = [one_hot(5, 2), torch.zeros_like(one_hot(4, 2))]  # seen before, hidden now
    distiller = transparent(build(PLAIN.model_copy(update={"frames": 2})))
    half = one_hot(4, 2) / 2  # no similarity speaks for either frame
    assert loss(distiller, seeing(half), window(maps, CELL_FORWARD_M)) == pytest.approx(0, abs=1e-9)


def test_one_frame_is_the_teachers_feature_itself() -> None:
    bev = torch.randn(*GRID.shape, CHANNELS)
    distiller = transparent(build(PLAIN.model_copy(update={"frames": 1})))
    assert distiller.teacher_frames == 1
    assert loss(distiller, seeing(bev), window([bev], 0.0)) == 0
    # The relation reads the frame before; the target still does not.
    related = transparent(build(PLAIN.model_copy(update={"frames": 1, "relation_weight": 1.0})))
    assert loss(related, seeing(bev), window([bev + 1, bev], CELL_FORWARD_M)) == 0


def test_at_a_scenes_start_the_target_is_the_teachers_feature_itself() -> None:
    maps = [torch.randn(*GRID.shape, CHANNELS) for _ in range(4)]
    teacher = at_scene_start(window(maps, CELL_FORWARD_M))
    assert loss(transparent(build(PLAIN)), seeing(maps[-1]), teacher) == 0


def test_new_ground_is_the_teachers_feature_itself() -> None:
    maps = [torch.randn(*GRID.shape, CHANNELS) for _ in range(4)]
    distiller = transparent(build(PLAIN))
    beyond = window(maps, 2 * GRID.size_m[1])  # each map lies wholly outside the next
    assert loss(distiller, seeing(maps[-1]), beyond) == 0
    assert loss(distiller, seeing(maps[-1]), window(maps, CELL_FORWARD_M)) > 1e-3


def test_the_materialised_target_is_read_as_it_is() -> None:
    target = torch.randn(*GRID.shape, CHANNELS)
    distiller = transparent(build(PLAIN.model_copy(update={"target": "temporal_target"})))
    assert (distiller.requires, distiller.teacher_frames) == (("temporal_target",), 1)
    teacher = stored_targets((TARGET,), GRID, batch=1, frames=1)
    teacher = replace(teacher, stored={"temporal_target": target[None, None]})
    assert loss(distiller, seeing(target), teacher) == 0
    assert loss(distiller, seeing(-target), teacher) > 0


@pytest.mark.parametrize(
    ("asked", "take"),
    [
        ({}, "frames=3 --set {}.future_frames=1 --set {}.temperature=0.5"),
        ({"frames": 3, "temperature": 0.5}, "future_frames=1"),
        ({"frames": 3, "future_frames": 1}, "temperature=0.5"),
        ({"frames": 2, "future_frames": 1, "temperature": 0.5}, "frames=3"),
    ],
)
def test_a_target_fused_otherwise_is_refused_with_both_ways_out(asked: dict[str, object], take: str) -> None:
    fusion = TemporalFusion(past_frames=2, future_frames=1, temperature=0.5)
    spec = TARGET.model_copy(update={"fusion": fusion})
    setting = DistillationSetting(GRID, CHANNELS, manifest_of((BEV, spec), GRID))
    options = TempDistillerOptions(target="temporal_target", **asked)
    with pytest.raises(CacheError, match=r"fused from 2 past and 1 future frames at temperature 0\.5, and") as refused:
        build_tempdistiller(options, setting)
    ours = "student.training.distillation.tempdistiller"
    assert f"Take what is there: --set {ours}.{take.replace('{}', ours)}; or" in str(refused.value)
    assert f"--set cache.temporal_target.past_frames={options.frames - 1} " in str(refused.value)
    there = options.model_copy(update={"frames": 3, "future_frames": 1, "temperature": 0.5})
    build_tempdistiller(there, setting)
    build_tempdistiller(options.model_copy(update={"target": "cached_frames", "future_frames": 0}), setting)


@pytest.mark.parametrize(
    ("changes", "requires", "frames"),
    [
        ({}, ("bev",), 4),
        ({"frames": 1}, ("bev",), 2),
        ({"frames": 1, "relation_weight": 0}, ("bev",), 1),
        ({"target": "temporal_target"}, ("bev", "temporal_target"), 2),
        ({"mode": "query"}, ("query_features", "query_positions"), 4),
        ({"mode": "query", "pairing": "index"}, ("query_features",), 4),
    ],
)
def test_only_what_is_needed_is_read(changes: dict[str, object], requires: tuple[str, ...], frames: int) -> None:
    distiller = build(TempDistillerOptions(**changes))
    assert (distiller.requires, distiller.teacher_frames) == (requires, frames)


def test_equal_relations_cost_nothing_and_others_do() -> None:
    before, now = torch.randn(*GRID.shape, CHANNELS), torch.randn(*GRID.shape, CHANNELS)
    distiller, teacher = build(TempDistillerOptions()), window([before, before, before, now], 0.7 * CELL_FORWARD_M)
    assert loss(distiller, seeing(2 * now, 5 * before), teacher, "relation") == pytest.approx(0, abs=1e-6)
    assert loss(distiller, seeing(before, before), teacher, "relation") > 0.05


def test_the_relation_needs_the_very_keyframe_before() -> None:
    before, now = torch.randn(*GRID.shape, CHANNELS), torch.randn(*GRID.shape, CHANNELS)
    distiller, teacher = build(TempDistillerOptions()), window([before, before, before, now], CELL_FORWARD_M)
    for student, cached in (
        (seeing(before), teacher),
        (replace(seeing(before, now), previous_is_adjacent=torch.tensor([False])), teacher),
        (seeing(before, now), at_scene_start(teacher)),
    ):
        assert loss(distiller, student, cached, "relation") == 0


def test_the_relation_leaves_out_new_ground() -> None:
    before, now = torch.randn(*GRID.shape, CHANNELS), torch.randn(*GRID.shape, CHANNELS)
    distiller, teacher = build(TempDistillerOptions()), window([before, before, before, now], 3 * CELL_FORWARD_M)
    student = seeing(torch.randn(*GRID.shape, CHANNELS), before)
    distiller.losses(student, teacher, ANNOTATIONS)["relation"].backward()
    assert student.features.bev.grad is not None
    touched = student.features.bev.grad[0].abs().sum(-1) > 0
    assert touched[:-3].all()
    assert not touched[-3:].any()


def test_whole_cells_are_hidden_anew_in_every_step() -> None:
    seen: list[Tensor] = []
    distiller = build(TempDistillerOptions(mask_ratio=0.3))
    distiller.rebuild.adapter = nn.Identity()
    distiller.rebuild.generator.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].detach()))
    student, teacher = seeing(torch.randn(*GRID.shape, CHANNELS)), window([torch.zeros(8, 4, CHANNELS)] * 4, 0.0)
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        distiller.losses(student, teacher, ANNOTATIONS)
    hidden = [(features == 0) for features in seen]
    assert all(torch.equal(mask.any(1), mask.all(1)) for mask in hidden)
    assert torch.equal(hidden[0], hidden[1])
    assert not torch.equal(hidden[0], hidden[2])


def test_the_share_that_is_hidden() -> None:
    keep = kept((100, 100), 0.3, torch.zeros(1))
    assert keep.mean().item() == pytest.approx(0.7, abs=0.02)
    assert kept((10,), 0.0, torch.zeros(1)).all()


def test_only_hidden_cells_may_be_compared() -> None:
    bev, wanted = torch.randn(*GRID.shape, CHANNELS), torch.randn(*GRID.shape, CHANNELS)
    options = PLAIN.model_copy(update={"mask_ratio": 0.5, "loss_on": "masked", "frames": 1})
    # What is hidden reaches the transparent generator as zero, so the error there is the target's square.
    distiller, student = transparent(build(options)), seeing(bev)
    teacher = window([wanted], 0.0)
    torch.manual_seed(3)
    value = loss(distiller, student, teacher)
    torch.manual_seed(3)
    hidden = kept((1, 1, *GRID.shape), 0.5, bev)[0, 0] == 0
    assert value == pytest.approx(wanted[hidden].square().mean().item())


def test_queries_learn_from_the_nearest_or_from_their_own_number() -> None:
    options = PLAIN.model_copy(update={"mode": "query", "frames": 1})
    student = random_student(CONFIG, 1)
    count = CONFIG.decoder.queries
    teacher = stored_targets(SPECS[-4:], GRID, batch=1, frames=1)
    order = torch.randperm(count)
    positions = student.features.queries.positions[-1].detach()[:, order]
    features = student.features.queries.features[-1].detach().half().float()[:, order]
    stored = dict(teacher.stored) | {
        "query_features": features[:, None].half(),
        "query_positions": positions[:, None, None].expand(-1, -1, 2, -1, -1),
    }
    teacher = replace(teacher, stored=stored)
    nearest, index = (transparent(build(options.model_copy(update={"pairing": how}))) for how in ("nearest", "index"))
    assert loss(nearest, student, teacher) < 1e-6
    assert loss(index, student, teacher) > 0.1


def test_queries_are_paired_by_index_only_where_equal_numbers_mean_equal_queries() -> None:
    other = CONFIG.model_copy(update={"decoder": CONFIG.decoder.model_copy(update={"queries": 7})})
    options = TempDistillerOptions(mode="query", pairing="index")
    with pytest.raises(RecipeError, match=r"the teacher has 12, the student 7\. .*decoder.queries=12.*pairing=nearest"):
        build(options, other)
    with pytest.raises(RecipeError, match=r"the teacher has 12, the student 12, not inherited .*inherit=true"):
        build(options, inherited=False)
    assert build(options).holds_queries
    by_place = build(options.model_copy(update={"pairing": "nearest"}), other, inherited=False)
    assert not by_place.holds_queries


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"mode": "query", "target": "temporal_target"}, "temporal_target is a BEV map"),
        ({"future_frames": 1}, "only a cached target has seen future_frames"),
        ({"mask_ratio": 0, "loss_on": "masked"}, "compares nothing"),
        ({"mask_ratio": 1.0}, "less than 1"),
        ({"frames": 0}, "greater than or equal to 1"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        TempDistillerOptions(**options)
