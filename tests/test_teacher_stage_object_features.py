"""The sparse cache: a teacher's BEV only where objects are, and as good as the map to the distiller that reads it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fake_teacher import DecodingTeacher, FakeTeacher, bev_spec, query_spec
from program import SMALL, Program
from train_fakes import boxes_of
from train_world import SCENES, tiny_tables

from cache.reading import open_cache
from pipeline.teacher_stage.made_up_frame import made_up_inputs
from pipeline.teacher_stage.network import DecodesBev, TeacherNetwork
from pipeline.teacher_stage.object_features import require_room, with_object_features
from pipeline.teacher_stage.reduced_grid import averaged_to
from schemas.boxes import Boxes
from schemas.errors import DataError, RecipeError
from schemas.frames import CameraInputs
from train.crucial_points import crucial_points

BLACK = made_up_inputs(FakeTeacher.preprocessing, (32, 18), 0)
ON_MAP = [[10, 5, -1, 2, 4.6, 1.7, 0.3, 1, 0], [-31, 31, -1, 2.9, 12, 3.8, 1.2, 3, 3]]
OFF_MAP = [40, 0, -1, 2, 4.6, 1.7, 0.3, 1, 0]


def inputs_with(boxes: Boxes | None) -> CameraInputs:
    return replace(BLACK, frame=replace(BLACK.frame, boxes=boxes))


def at_objects(teacher: TeacherNetwork, boxes: Boxes | None, max_objects: int = 4) -> torch.Tensor:
    features, state = with_object_features(teacher, max_objects).features(inputs_with(boxes), 6)
    assert state == 7  # the teacher's own
    return features["object_features"]


def test_objects_on_the_map_are_read_in_their_order_and_the_rest_is_zero() -> None:
    teacher = FakeTeacher((bev_spec(8, 16), query_spec()), (8, 16))
    read = at_objects(teacher, boxes_of([ON_MAP[0], OFF_MAP, ON_MAP[1]]))
    points = crucial_points([boxes_of(ON_MAP)], teacher.grid, legacy_swap=False)
    expected = points.read(teacher.given["bev"].movedim(-1, 0)[None])[0]
    assert read.shape == (4, 9, 3)
    assert torch.equal(read[:2], expected)
    assert read[:2].any(dim=-1).sum() > 9
    assert not read[2:].any()


@pytest.mark.parametrize("boxes", [None, boxes_of([]), boxes_of([OFF_MAP])], ids=["unlabelled", "empty", "off map"])
def test_a_frame_without_objects_is_all_zero(boxes: Boxes | None) -> None:
    assert not at_objects(FakeTeacher((bev_spec(8, 8),), (8, 8)), boxes).any()


def test_half_precision_is_read_in_float32() -> None:
    teacher = FakeTeacher((bev_spec(8, 8, 1),), (8, 8))
    teacher.given = {"bev": torch.full((8, 8, 1), 1024.0, dtype=torch.bfloat16)}
    with torch.autocast("cpu", torch.bfloat16):
        read = at_objects(teacher, boxes_of(ON_MAP[:1]))
    torch.testing.assert_close(read[0], torch.full((9, 1), 1024.0))


def test_specs_follow_and_it_decodes_exactly_when_the_teacher_does() -> None:
    specs = (bev_spec(8, 8), query_spec())
    plain = with_object_features(FakeTeacher(specs, (8, 8)), 4)
    decoding = with_object_features(DecodingTeacher(specs, (8, 8), boxes_of(ON_MAP)), 4)
    *own, added = plain.feature_specs()
    assert tuple(own) == specs
    assert (added.name, added.dims, added.shape) == (
        "object_features",
        ("object", "crucial_point", "channel"),
        (4, 9, 3),
    )
    assert isinstance(plain, TeacherNetwork)
    assert not isinstance(plain, DecodesBev)
    assert isinstance(decoding, DecodesBev)
    assert len(decoding.boxes_from_bev(torch.zeros(8, 8, 3))) == 2
    assert decoding.inheritable().keys() == {"queries"}


def test_objects_are_read_before_the_map_is_averaged() -> None:
    teacher = FakeTeacher((bev_spec(8, 8),), (8, 8))
    reduced = averaged_to(with_object_features(teacher, 4), 4)
    features, _ = reduced.features(inputs_with(boxes_of(ON_MAP)), None)
    assert features["bev"].shape == (4, 4, 3)
    assert torch.equal(features["object_features"], at_objects(teacher, boxes_of(ON_MAP)))


def test_a_teacher_without_a_map_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"object_features are read from a teacher's bev.*offers queries.*--arrays"):
        with_object_features(FakeTeacher((query_spec(),), (8, 8)), 4)


def test_a_crowded_frame_is_refused_with_the_rows_it_needs(tmp_path: Path) -> None:
    teacher = FakeTeacher((bev_spec(8, 8),), (8, 8))
    with pytest.raises(
        DataError, match=r"2 annotated objects.*object_features has rows for 1.*--set cache.max_objects=2"
    ):
        at_objects(teacher, boxes_of(ON_MAP), max_objects=1)

    tables = tiny_tables(tmp_path)
    most = max(len(boxes) for name in SCENES for frame in tables.frames(name) if (boxes := frame.boxes) is not None)
    everywhere = teacher.grid.model_copy(update={"extent_m": (-1e6, -1e6, -5, 1e6, 1e6, 5)})
    require_room(tables, SCENES, everywhere, most)
    with pytest.raises(RecipeError, match=rf"sample .* has {most} annotated objects.*--set cache.max_objects={most}"):
        require_room(tables, SCENES, everywhere, most - 1)


def test_a_student_trains_from_a_cache_of_objects_alone(
    tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Program(tiny_world, tmp_path, monkeypatch)
    arrays = ("--arrays", "object_features,query_boxes,query_logits")
    told = program.refused("cache-teacher", "--untrained", *arrays, sets=(*SMALL, "--set=cache.max_objects=1"))
    assert "--set cache.max_objects=" in told

    program.succeeded("cache-teacher", "--untrained", *arrays, sets=(*SMALL, "--set=cache.max_objects=60"))
    manifest = open_cache(Path("out/demo/teacher-cache")).manifest
    assert {spec.name for spec in manifest.features} == {"object_features", "query_boxes", "query_logits"}
    assert manifest.feature("object_features").shape == (60, 9, 64)

    source = "--set=student.training.distillation.unidistill.source=object_features"
    distilling = ("--allow-untrained-teacher", "--distiller", "unidistill")
    assert "no feature 'bev'" in program.refused("train-student", *distilling)
    assert "NDS" in program.succeeded("train-student", *distilling, sets=(*SMALL, source))
