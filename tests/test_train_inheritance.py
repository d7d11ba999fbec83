"""A student starts from its teacher's parameters, read from the cache; whatever does not fit is named and refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from train_world import CPU, FRAMES, SCENES, fill_cache, tiny_config, tiny_detector, tiny_tables

from cache.reading import Cache, open_cache
from cache.writing import SceneSlot, open_for_writing
from detectors.bevformer import BEVFormer
from detectors.config import BEVFormerConfig
from pipeline.teacher_stage.bevformer_teacher import BEVFormerTeacher
from scenes.scene_tables import SceneTables
from schemas.errors import CacheError, RecipeError
from train.adapters import resize_bev
from train.clips import ClipOptions
from train.distiller_catalogue import DistillationOptions
from train.inheritance import (
    BEV_QUERIES,
    COL_TABLE,
    HEAD_PARTS,
    OBJECT_QUERIES,
    PARTS,
    ROW_TABLE,
    hold_object_queries,
    inherit,
)
from train.loop import train
from train.metrics_log import StepReport
from train.options import TrainOptions
from train.run import TrainingRun

TEACHER = tiny_config(rows=9, cols=8, dims=12)
STUDENT = tiny_config(rows=6, cols=5, dims=12)
Given = dict[str, NDArray[np.float32]]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> SceneTables:
    return tiny_tables(tmp_path_factory.getbasetemp() / "train-world")


@pytest.fixture(scope="module")
def cache_of(tables: SceneTables, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Given], Cache]:
    """The same cache with these parameters beside it."""
    path = tmp_path_factory.mktemp("inheritance") / "cache"
    manifest = fill_cache(path, tables).manifest
    slots = [SceneSlot(name, tables.frames(name)[0].scene_token, FRAMES) for name in SCENES]

    def build(given: Given) -> Cache:
        open_for_writing(path, manifest, slots).write_parameters(given)
        return open_cache(path)

    return build


def given_by(config: BEVFormerConfig) -> Given:
    tensors = BEVFormerTeacher(tiny_detector(config, seed=5)).inheritable()
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def with_decoder(config: BEVFormerConfig, **changes: int) -> BEVFormerConfig:
    return config.model_copy(update={"decoder": config.decoder.model_copy(update=changes)})


def with_fusion(config: BEVFormerConfig) -> BEVFormerConfig:
    encoder = config.encoder.model_copy(update={"history_fusion": True})
    return config.model_copy(update={"encoder": encoder, "embed_dims": 16, "neck": tiny_config(dims=16).neck})


def with_heatmap(config: BEVFormerConfig) -> BEVFormerConfig:
    head = config.head.model_copy(update={"heatmap_queries": True})
    return config.model_copy(update={"head": head, "embed_dims": 16, "neck": tiny_config(dims=16).neck})


def test_every_part_is_the_teachers_and_the_rest_stays(cache_of) -> None:
    given, student = given_by(TEACHER), tiny_detector(STUDENT)
    before = {name: values.clone() for name, values in student.state_dict().items()}
    report = inherit(student, cache_of(given), HEAD_PARTS)
    after = student.state_dict()
    assert set(report.resized) == {BEV_QUERIES, ROW_TABLE, COL_TABLE}
    for name in report.copied:
        np.testing.assert_array_equal(after[name].numpy(), given[name])
    begun = {*report.copied, *report.resized}
    assert all(any(name.startswith(PARTS[part]) for name in begun) for part in HEAD_PARTS)
    assert all(torch.equal(values, after[name]) for name, values in before.items() if name not in begun)
    assert not any(name.startswith(("img_backbone.", "pts_bbox_head.transformer.encoder.")) for name in begun)


def test_tables_of_cells_keep_their_ground(cache_of) -> None:
    given, student = given_by(TEACHER), tiny_detector(STUDENT)
    inherit(student, cache_of(given), ("bev_queries", "positions"))
    state = student.state_dict()
    old = torch.from_numpy(given[BEV_QUERIES]).reshape(1, 9, 8, 12).permute(0, 3, 1, 2)
    expected = resize_bev(old, (6, 5)).permute(0, 2, 3, 1).reshape(30, 12)
    torch.testing.assert_close(state[BEV_QUERIES], expected)
    # Nine rows on six: the first new row covers the first old one and half of the second.
    row = torch.from_numpy((given[ROW_TABLE][0] + 0.5 * given[ROW_TABLE][1]) / 1.5)
    torch.testing.assert_close(state[ROW_TABLE][0], row)


def test_equal_grids_are_copied_to_the_last_bit(cache_of) -> None:
    student = tiny_detector(TEACHER)
    report = inherit(student, cache_of(given_by(TEACHER)), HEAD_PARTS)
    assert report.resized == ()
    np.testing.assert_array_equal(student.state_dict()[BEV_QUERIES].numpy(), given_by(TEACHER)[BEV_QUERIES])


def test_a_heatmap_head_is_inherited_as_the_queries(cache_of) -> None:
    teacher, student = with_heatmap(TEACHER), tiny_detector(with_heatmap(STUDENT))
    report = inherit(student, cache_of(given_by(teacher)), HEAD_PARTS)
    assert "pts_bbox_head.heatmap_queries.content.weight" in report.copied
    assert OBJECT_QUERIES not in report.copied


def test_the_block_that_reads_the_memory_is_inherited_by_name_alone(cache_of) -> None:
    given, student = given_by(with_fusion(TEACHER)), tiny_detector(with_fusion(STUDENT))
    report = inherit(student, cache_of(given), (*HEAD_PARTS, "history_fusion"))
    block = {name for name in student.state_dict() if name.startswith(PARTS["history_fusion"])}
    assert block
    assert block <= set(report.copied)
    assert all(np.array_equal(student.state_dict()[name].numpy(), given[name]) for name in block)
    assert "history_fusion" not in HEAD_PARTS


def test_a_part_that_neither_has_is_refused(cache_of) -> None:
    with pytest.raises(RecipeError, match=r"cannot inherit history_fusion: neither it nor the teacher .* has any"):
        inherit(tiny_detector(STUDENT), cache_of(given_by(TEACHER)), ("history_fusion",))


def test_a_cache_without_the_block_says_how_it_gets_it(cache_of) -> None:
    student = tiny_detector(with_fusion(STUDENT))
    old = {name: values for name, values in given_by(with_fusion(TEACHER)).items() if ".encoder." not in name}
    with pytest.raises(RecipeError, match=r"history_fusion.* and the teacher has no such tensor.* make cache-teacher"):
        inherit(student, cache_of(old), ("history_fusion",))


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (tiny_config(6, 5, 16), r"cannot inherit .*bev_embedding.weight: it has the shape \[72, 12\].* \[30, 16\]"),
        (with_decoder(STUDENT, queries=7), r"query_embedding.weight: it has the shape \[12, 24\].*\[7, 24\]"),
        (with_decoder(STUDENT, layers=2), r"cannot inherit decoder: .*layers\.1\..* is the student's, and the teacher"),
        (with_heatmap(STUDENT), r"heatmap_queries\..* is the student's, and the teacher has no such tensor"),
    ],
    ids=["channels", "queries", "layers", "head"],
)
def test_what_does_not_fit_is_named_and_nothing_is_changed(cache_of, student, message: str) -> None:
    detector = tiny_detector(student)
    before = {name: values.clone() for name, values in detector.state_dict().items()}
    with pytest.raises(RecipeError, match=message + r".*student\.training\.distillation\.inherit"):
        inherit(detector, cache_of(given_by(TEACHER)), HEAD_PARTS)
    assert all(torch.equal(values, before[name]) for name, values in detector.state_dict().items())


def test_a_teacher_with_more_layers_is_refused(cache_of) -> None:
    with pytest.raises(RecipeError, match=r"layers\.1\..* is the teacher's, and the student has no such tensor"):
        inherit(tiny_detector(STUDENT), cache_of(given_by(with_decoder(TEACHER, layers=2))), ("decoder",))


def test_other_classes_are_refused(cache_of) -> None:
    student = tiny_detector(STUDENT.model_copy(update={"class_names": tuple(reversed(STUDENT.class_names))}))
    with pytest.raises(RecipeError, match=r"class logits by their order: the teacher's classes are .*, the student's"):
        inherit(student, cache_of(given_by(TEACHER)), ("branches",))


def test_position_tables_of_another_grid_than_the_queries_are_refused(cache_of) -> None:
    given = given_by(TEACHER) | {ROW_TABLE: np.zeros((4, 6), np.float32)}
    with pytest.raises(CacheError, match=r"has 72 rows, its position tables .* 4 and 8: expected one row per cell"):
        inherit(tiny_detector(STUDENT), cache_of(given), ("bev_queries",))


def test_other_attention_heads_are_refused_though_shapes_agree(tables: SceneTables, tmp_path: Path) -> None:
    plain = fill_cache(tmp_path / "plain", tables).manifest
    described = plain.teacher.model_copy(update={"architecture": with_decoder(TEACHER, heads=4).model_dump_json()})
    slots = [SceneSlot(name, tables.frames(name)[0].scene_token, FRAMES) for name in SCENES]
    writer = open_for_writing(tmp_path / "cache", plain.model_copy(update={"teacher": described}), slots)
    writer.write_parameters(given_by(TEACHER))
    with pytest.raises(RecipeError, match=r"has 2 heads, the teacher's 4\. --set student\.detector\.decoder\.heads=4"):
        inherit(tiny_detector(STUDENT), open_cache(tmp_path / "cache"), ("decoder",))


def test_held_queries_do_not_train() -> None:
    detector = tiny_detector(STUDENT)
    hold_object_queries(detector)
    held = [name for name, parameter in detector.named_parameters() if not parameter.requires_grad]
    assert OBJECT_QUERIES in held


@pytest.mark.parametrize(("given", "expected"), [(True, HEAD_PARTS), (False, ()), (("decoder",), ("decoder",))])
def test_the_option_takes_all_none_or_parts(given: object, expected: tuple[str, ...]) -> None:
    assert DistillationOptions.model_validate({"inherit": given}).inherit == expected


def run_of(detector: BEVFormer, tables: SceneTables, cache: Cache, out: Path, names: tuple[str, ...]) -> TrainingRun:
    options = TrainOptions(
        steps=2,
        batch_size=2,
        clips=ClipOptions(length=2),
        distillation=DistillationOptions(names=names, inherit=HEAD_PARTS),
    )
    return TrainingRun(detector, tables, SCENES, cache, options, out, CPU)


def test_a_run_begins_with_the_teachers_parameters_once_and_says_so(
    cache_of, tables: SceneTables, tmp_path: Path
) -> None:
    given = given_by(TEACHER)
    cache = cache_of(given)
    fresh = tiny_detector(STUDENT)
    begun = run_of(fresh, tables, cache, tmp_path / "out", ("feature",))
    train(begun, lambda _: None, max_steps=0)
    np.testing.assert_array_equal(fresh.state_dict()[OBJECT_QUERIES].numpy(), given[OBJECT_QUERIES])
    told = json.loads((tmp_path / "out" / "inherited.json").read_text())
    assert told["teacher"] == "tiny"
    assert told["parts"] == list(HEAD_PARTS)
    assert OBJECT_QUERIES in told["copied"]
    assert BEV_QUERIES in told["resized"]

    trained = tiny_detector(STUDENT)
    train(run_of(trained, tables, cache, tmp_path / "out", ("feature",)), lambda _: None, max_steps=1)
    moved = trained.state_dict()[OBJECT_QUERIES]
    resumed = tiny_detector(STUDENT)
    train(run_of(resumed, tables, cache, tmp_path / "out", ("feature",)), lambda _: None, max_steps=1)
    assert not np.array_equal(moved.numpy(), given[OBJECT_QUERIES])
    assert torch.equal(resumed.state_dict()[OBJECT_QUERIES], moved)


def test_queries_that_are_compared_by_number_are_held(cache_of, tables: SceneTables, tmp_path: Path) -> None:
    given, student = given_by(TEACHER), tiny_detector(STUDENT)
    run = run_of(student, tables, cache_of(given), tmp_path / "out", ("structured-kd",))
    reports: list[StepReport] = []
    train(run, reports.append)
    assert {"structured-kd/class", "structured-kd/box"} < set(reports[-1].terms)
    state = student.state_dict()
    np.testing.assert_array_equal(state[OBJECT_QUERIES].numpy(), given[OBJECT_QUERIES])
    moved = "pts_bbox_head.transformer.decoder.layers.0.attentions.1.value_proj.weight"
    assert not np.array_equal(state[moved].numpy(), given[moved])


def test_a_cache_without_parameters_is_refused(tables: SceneTables, tmp_path: Path) -> None:
    cache = fill_cache(tmp_path / "cache", tables)
    run = run_of(tiny_detector(STUDENT), tables, cache, tmp_path / "out", ("feature",))
    with pytest.raises(CacheError, match=r"no teacher parameters to inherit; repeat the make cache-teacher command"):
        train(run, lambda _: None)


def test_inheriting_without_reading_a_cache_is_refused(cache_of, tables: SceneTables, tmp_path: Path) -> None:
    run = run_of(tiny_detector(STUDENT), tables, cache_of(given_by(TEACHER)), tmp_path / "out", ("none",))
    with pytest.raises(RecipeError, match=r"inherit=bev_queries,.* takes parameters from a teacher cache.*none reads"):
        train(run, lambda _: None)
