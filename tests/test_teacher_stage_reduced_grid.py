"""BEV features averaged to a coarser grid: exact by area, told in the specs, and as good as any cache to a student."""

from pathlib import Path

import pytest
import torch
from fake_teacher import DecodingTeacher, FakeTeacher, bev_spec, offsets_spec, query_spec, weights_spec
from hypothesis import given, settings
from hypothesis import strategies as st
from program import Program
from torch import Tensor, nn
from train_fakes import boxes_of

from cache.reading import open_cache
from pipeline.teacher_stage.made_up_frame import made_up_inputs
from pipeline.teacher_stage.network import DecodesBev, TeacherNetwork
from pipeline.teacher_stage.reduced_grid import averaged_to
from schemas.errors import RecipeError

INPUTS = made_up_inputs(FakeTeacher.preprocessing, (32, 18), 0)


def averaged(teacher: FakeTeacher, cells: int) -> dict[str, Tensor]:
    features, _ = averaged_to(teacher, cells).features(INPUTS, None)
    return dict(features)


@settings(max_examples=15)
@given(st.integers(1, 12), st.integers(1, 3), st.integers(1, 12), st.integers(0, 2**16))
def test_averaging_keeps_the_mean_and_constants(rows: int, proportion: int, cells: int, seed: int) -> None:
    cells = min(cells, rows)
    teacher = FakeTeacher((bev_spec(rows, rows * proportion),), (rows, rows * proportion))
    values = torch.randn(rows, rows * proportion, 3, generator=torch.Generator().manual_seed(seed))
    teacher.given = {"bev": values}
    coarse = averaged(teacher, cells)["bev"]
    assert coarse.shape == (cells, cells * proportion, 3)
    torch.testing.assert_close(coarse.mean((0, 1)), values.mean((0, 1)), rtol=1e-5, atol=1e-6)
    teacher.given = {"bev": torch.full_like(values, 0.7)}
    torch.testing.assert_close(averaged(teacher, cells)["bev"], torch.full_like(coarse, 0.7))


@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_a_whole_ratio_is_average_pooling(ratio: int) -> None:
    teacher = FakeTeacher((bev_spec(12, 24),), (12, 24))
    pooled = nn.functional.avg_pool2d(teacher.given["bev"].movedim(-1, 0)[None], ratio)[0].movedim(0, -1)
    torch.testing.assert_close(averaged(teacher, 12 // ratio)["bev"], pooled)


def test_a_cell_that_is_cut_counts_by_its_area() -> None:
    teacher = FakeTeacher((bev_spec(5, 5, 1),), (5, 5))
    teacher.given = {"bev": torch.arange(5.0)[:, None, None].expand(5, 5, 1)}
    column = averaged(teacher, 2)["bev"][:, 0, 0]
    torch.testing.assert_close(column, torch.tensor([(0 + 1 + 2 / 2) / 2.5, (2 / 2 + 3 + 4) / 2.5]))


def test_as_many_cells_as_before_change_nothing() -> None:
    teacher = FakeTeacher((bev_spec(6, 6),), (6, 6))
    assert torch.equal(averaged(teacher, 6)["bev"], teacher.given["bev"])


def test_half_precision_is_averaged_in_float32() -> None:
    teacher = FakeTeacher((bev_spec(4, 4, 1),), (4, 4))
    values = torch.full((4, 4, 1), 1024.0, dtype=torch.bfloat16)
    values[0, 0] = 1032.0
    teacher.given = {"bev": values}
    with torch.autocast("cpu", torch.bfloat16):
        coarse = averaged(teacher, 2)["bev"]
    assert coarse.dtype == torch.float32
    assert coarse[0, 0, 0] == 1026.0


def test_offsets_count_larger_cells_and_weights_stay_weights() -> None:
    specs = (bev_spec(8, 8), offsets_spec(8, 8), weights_spec(8, 8), query_spec())
    teacher = FakeTeacher(specs, (8, 8))
    teacher.given = dict(teacher.given) | {"offsets": torch.full((8, 8, 2, 2), 6.0)}
    coarse = averaged(teacher, 4)
    torch.testing.assert_close(coarse["offsets"], torch.full((4, 4, 2, 2), 3.0))
    assert 0 <= coarse["weights"].min() <= coarse["weights"].max() <= 1
    assert torch.equal(coarse["queries"], teacher.given["queries"])


def test_specs_grid_and_state_follow() -> None:
    specs = (bev_spec(8, 16), query_spec())
    teacher = FakeTeacher(specs, (8, 16))
    reduced = averaged_to(teacher, 4)
    bev, queries = reduced.feature_specs()
    assert bev.shape == (4, 8, 3)
    assert "Averaged by area from 8×16 to 4×8 cells" in bev.description
    assert queries == specs[1]
    assert reduced.grid == teacher.grid.model_copy(update={"rows": 4, "cols": 8})
    assert reduced.grid.extent_m == teacher.grid.extent_m
    assert (reduced.preprocessing, reduced.class_names) == (teacher.preprocessing, teacher.class_names)
    assert reduced.state_dict().keys() == {"weight"}
    assert reduced.features(INPUTS, 6)[1] == 7, "the teacher's own state goes round, at full resolution"


def test_it_decodes_exactly_when_the_teacher_does() -> None:
    boxes = boxes_of([[0.0] * 9])
    specs = (bev_spec(8, 8),)
    plain, decoding = averaged_to(FakeTeacher(specs, (8, 8)), 4), DecodingTeacher(specs, (8, 8), boxes)
    reduced = averaged_to(decoding, 4)
    assert isinstance(plain, TeacherNetwork)
    assert isinstance(reduced, TeacherNetwork)
    assert not isinstance(plain, DecodesBev)
    assert isinstance(reduced, DecodesBev)

    coarse = torch.rand(4, 4, 3)
    assert reduced.boxes_from_bev(coarse) is boxes
    fine = nn.functional.interpolate(coarse.movedim(-1, 0)[None], (8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(decoding.decoded[0], fine[0].movedim(0, -1))


def test_what_a_student_may_inherit_passes_through() -> None:
    specs = (bev_spec(8, 8),)
    assert averaged_to(DecodingTeacher(specs, (8, 8), boxes_of([])), 4).inheritable().keys() == {"queries"}
    assert averaged_to(FakeTeacher(specs, (8, 8)), 4).inheritable() == {}


@pytest.mark.parametrize(("cells", "told"), [(0, "from 1 to 8"), (-1, "from 1 to 8"), (9, "only make it coarser")])
def test_a_grid_that_is_no_coarser_grid_is_refused(cells: int, told: str) -> None:
    with pytest.raises(RecipeError, match=f"--bev-grid {cells}: .* 8 rows and 8 columns.*{told}"):
        averaged_to(FakeTeacher((bev_spec(8, 8),), (8, 8)), cells)


def test_columns_that_would_not_be_whole_are_refused() -> None:
    teacher = FakeTeacher((bev_spec(6, 9),), (6, 9))
    with pytest.raises(RecipeError, match=r"3 rows would need 4\.5 columns .* multiple of 2"):
        averaged_to(teacher, 3)
    assert averaged_to(teacher, 4).grid.shape == (4, 6)


def test_a_student_trains_from_a_reduced_cache(
    tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Program(tiny_world, tmp_path, monkeypatch)
    program.succeeded("cache-teacher", "--untrained", "--bev-grid", "15")
    manifest = open_cache(Path("out/demo/teacher-cache")).manifest
    assert manifest.grid.shape == (15, 15)
    assert manifest.feature("temporal_offsets").shape[:2] == (15, 15)
    assert "NDS" in program.succeeded("train-student", "--allow-untrained-teacher", "--distiller", "feature")
    refused = program.refused("cache-teacher", "--untrained")
    assert "grid.rows: 15 in the cache, 40 now" in refused
