"""A teacher of one's own: the worked example end to end, and every mistake in somebody's file told in one line."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from fake_teacher import DecodingTeacher, FakeTeacher, bev_spec
from program import Program
from train_fakes import boxes_of

from cache.reading import open_cache
from pipeline.teacher_stage.file_teacher import open_file_teacher
from pipeline.teacher_stage.guarded_teacher import guarded
from pipeline.teacher_stage.made_up_frame import made_up_inputs
from pipeline.teacher_stage.network import DecodesBev, TeacherNetwork
from schemas.errors import DataError, RecipeError, TeacherError

CPU = torch.device("cpu")
TOY = Path(__file__).resolve().parent.parent / "docs" / "toy_lss_teacher.py"
INPUTS = made_up_inputs(FakeTeacher.preprocessing, (32, 18), 3)

TEACHER = """
import torch
from schemas.bev_grid import BevGrid
from schemas.features import FeatureSpec
from schemas.preprocessing import Preprocessing

class Mine:
    preprocessing = Preprocessing(color_order="rgb", mean=(0, 0, 0), std=(1, 1, 1), scale=0.25)
    grid = BevGrid(rows=4, cols=4, extent_m=(-32.0, -32.0, -2.5, 32.0, 32.0, 1.5))
    class_names = ("car",)
    def feature_specs(self):
        return (FeatureSpec(name="bev", dims=("y", "x", "channel"), shape=(4, 4, 2), encoding="affine",
                            scale_dims=("channel",), description="Mine."),)
    def features(self, inputs, previous):
        return {"bev": torch.ones(4, 4, 2)}, None
    def state_dict(self):
        return {"weight": torch.ones(2)}

def mine(checkpoint, device):
    return Mine()
"""


def written(folder: Path, *changes: tuple[str, str], name: str = "mine.py") -> str:
    """The teacher file with some of its text replaced, as ``--teacher`` takes it."""
    text = TEACHER
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / name).write_text(text)
    return f"{folder / name}:mine"


def refused(file: str, kind: type[RecipeError | TeacherError] = RecipeError) -> str:
    with pytest.raises(kind) as told:
        open_file_teacher(file, None, CPU)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_a_file_becomes_a_teacher(tmp_path: Path) -> None:
    opened = open_file_teacher(written(tmp_path), None, CPU)
    assert opened.name == "mine.py:mine"
    assert str(tmp_path) not in opened.architecture, "a cache does not tell where the file lay"
    assert isinstance(opened.network, TeacherNetwork)
    assert not isinstance(opened.network, DecodesBev)
    features, _ = opened.network.features(INPUTS, None)
    assert features["bev"].shape == (4, 4, 2)


def test_an_edited_file_is_another_teacher(tmp_path: Path) -> None:
    before = open_file_teacher(written(tmp_path), None, CPU).architecture
    assert open_file_teacher(written(tmp_path), None, CPU).architecture == before
    assert open_file_teacher(written(tmp_path, ("torch.ones(4", "torch.zeros(4")), None, CPU).architecture != before


def test_checkpoint_and_device_are_handed_on(tmp_path: Path) -> None:
    file = written(tmp_path, ("return Mine()", "raise RuntimeError(f'{checkpoint} on {device}')"))
    with pytest.raises(TeacherError, match=r"RuntimeError: weights\.pth on cpu \(mine\.py, line 20: raise "):
        open_file_teacher(file, Path("weights.pth"), CPU)


def test_modules_beside_the_file_can_be_imported_and_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_layers.py").write_text("WIDTH = 2\n")
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").write_text("")
    (tmp_path / "my_package" / "inner.py").write_text("VALUE = 3\n")
    (tmp_path / "schemas.py").write_text("raise RuntimeError('not ours')\n")
    before, path = set(sys.modules), list(sys.path)
    lines = "import torch\nfrom my_layers import WIDTH\nfrom my_package.inner import VALUE"
    open_file_teacher(written(tmp_path, ("import torch", lines)), None, CPU)
    assert set(sys.modules) - before <= {"teacher_file_mine"}
    assert sys.path == path
    assert isinstance(sys.modules["schemas"], ModuleType)
    assert sys.modules["schemas"].__file__ != str(tmp_path / "schemas.py")


@pytest.mark.parametrize(
    "file", ["teacher", "teacher.py", "teacher.py:", "teacher.txt:load", "teacher.py:a b", ":load"]
)
def test_what_is_not_a_file_and_a_function(file: str) -> None:
    assert "expected FILE.py:function" in refused(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert f"cannot read {tmp_path / 'nowhere.py'}: No such file" in refused(f"{tmp_path / 'nowhere.py'}:load")


def test_a_function_that_is_not_there(tmp_path: Path) -> None:
    file = written(tmp_path).replace(":mine", ":yours")
    assert "mine.py has no function yours; it has Mine, mine" in refused(file)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            ("import torch", "import torch\nimport no_such_module"),
            "No module named 'no_such_module' (mine.py, line 3: import no_such_module)",
        ),
        (
            ("import torch", "import torch\nhalf = 1 / 0"),
            "ZeroDivisionError: division by zero (mine.py, line 3: half = 1 / 0)",
        ),
        (("import torch", "import torch\nraise SystemExit(3)"), "SystemExit: 3 (mine.py, line 3"),
        (("import torch", "import torch\nraise ValueError('a' * 500)"), f"{'a' * 388} ... (mine.py, line 3"),
        (("class Mine:", "class Mine"), "SyntaxError: expected ':' (mine.py, line 7)"),
    ],
)
def test_a_file_that_raises(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    message = refused(written(tmp_path, change), TeacherError)
    assert "mine.py cannot be run: " in message
    assert told in message


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("return Mine()", "return None"), "mine.py:mine returned None, which is no teacher: no preprocessing, grid"),
        (("def features(", "def other("), "returned a Mine, which is no teacher: no features;"),
        (("    class_names", "    names"), "no class_names;"),
        (('("car",)', '"car"'), "its class_names are 'car', expected a tuple of names, each once"),
        (('("car",)', '("car", "car")'), "expected a tuple of names, each once"),
        (("    grid = BevGrid(rows=4, cols=4, extent_m=(", "    grid = (("), "its grid is a tuple, expected a BevGrid"),
        (("def features(", "features = 3\n    def other("), "its features is a int, not a method"),
        (("return (FeatureSpec(", "return list((FeatureSpec("), "expected a tuple of FeatureSpec"),
        (
            ('return {"weight": torch.ones(2)}', 'return {"weight": 2}'),
            "its state_dict()['weight'] is a int, expected a Tensor",
        ),
        (("return (FeatureSpec(", "return ('bev', FeatureSpec("), "entry is a str, expected a FeatureSpec"),
    ],
)
def test_what_is_not_a_teacher(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    changes = [change]
    if "list((" in change[1]:
        changes.append(('description="Mine."),)', 'description="Mine."),))'))
    assert told in refused(written(tmp_path, *changes))


def test_two_features_of_one_name(tmp_path: Path) -> None:
    change = (
        "    def features(",
        "    def feature_specs(self, one=feature_specs):\n        return 2 * one(self)\n    def features(",
    )
    assert "feature_specs() names are ('bev', 'bev')" in refused(written(tmp_path, change))


def test_a_spec_that_cannot_be(tmp_path: Path) -> None:
    told = refused(written(tmp_path, ("shape=(4, 4, 2)", "shape=(4, 4)")), TeacherError)
    assert "bev: dims ('y', 'x', 'channel') do not name the sizes (4, 4)" in told
    assert "(mine.py, line 12" in told


def test_a_network_in_training_mode(tmp_path: Path) -> None:
    changes = (("class Mine:", "class Mine(torch.nn.Dropout):"),)
    assert "is in training mode" in refused(written(tmp_path, *changes))
    open_file_teacher(written(tmp_path, *changes, ("return Mine()", "return Mine().eval()")), None, CPU)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("None", "gave NoneType at scene made-up, step 3: features() must return a mapping of tensors"),
        ("{'bev': torch.ones(4, 4, 2)}", "gave {bev: Tensor} at scene made-up, step 3"),
        ("{}, None", "the teacher gave no bev, which its specs promise; it gave []"),
        ("{'bev': torch.ones(2, 4, 4)}, None", "bev has shape (2, 4, 4), expected (4, 4, 2) ('y', 'x', 'channel')"),
        ("{'bev': torch.ones(4, 4, 2, dtype=torch.int64)}, None", "bev is torch.int64, expected a tensor of floating"),
        ("{'bev': 3}, None", "gave {bev: int}, NoneType at scene made-up"),
        ("{'bev': torch.full((4, 4, 2), float('nan'))}, None", "bev holds values that are NaN or infinite"),
        ("{'bev': torch.ones(2, 2) @ torch.ones(3, 3)}, None", "RuntimeError: mat1 and mat2 shapes"),
    ],
)
def test_a_first_frame_that_is_not_what_was_promised(tmp_path: Path, answer: str, told: str) -> None:
    network = open_file_teacher(written(tmp_path, ('{"bev": torch.ones(4, 4, 2)}, None', answer)), None, CPU).network
    with pytest.raises(TeacherError) as refusal:
        network.features(INPUTS, None)
    assert told in str(refusal.value)
    assert "mine.py" in str(refusal.value)
    assert "scene made-up, step 3" in str(refusal.value)
    assert "\n" not in str(refusal.value)


class Recording(FakeTeacher):
    """Raises what it was told to."""

    def __init__(self, error: Exception) -> None:
        super().__init__((bev_spec(4, 4),), (4, 4))
        self.error = error

    def features(self, *_: object) -> tuple[dict[str, torch.Tensor], int]:
        raise self.error


def test_a_teacher_may_say_that_a_frame_is_bad() -> None:
    bad_frame = DataError("the LiDAR sweep of this frame is empty")
    with pytest.raises(DataError) as told:
        guarded(Recording(bad_frame), "mine", Path(__file__)).features(INPUTS, None)
    assert told.value is bad_frame


def test_nan_in_a_later_frame_is_left_to_the_quantiser() -> None:
    teacher = FakeTeacher((bev_spec(4, 4),), (4, 4))
    network = guarded(teacher, "mine", Path(__file__))
    network.features(INPUTS, None)
    teacher.given = {"bev": torch.full((4, 4, 3), torch.nan)}
    features, state = network.features(INPUTS, 1)
    assert features["bev"].isnan().all(), "its scene fails when it is to be stored; the others go on"
    assert state == 2


def test_a_guarded_teacher_decodes_when_it_can() -> None:
    specs = (bev_spec(4, 4),)
    decoding = DecodingTeacher(specs, (4, 4), boxes_of([[0.0] * 9]))
    network = guarded(decoding, "mine", Path(__file__))
    assert isinstance(network, DecodesBev)
    assert network.boxes_from_bev(torch.zeros(4, 4, 3)) is decoding.boxes
    assert network.inheritable().keys() == {"queries"}
    decoding.boxes = None  # type: ignore[assignment]
    with pytest.raises(TeacherError, match="boxes_from_bev gave a NoneType"):
        network.boxes_from_bev(torch.zeros(4, 4, 3))


@pytest.fixture
def program(tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    return Program(tiny_world, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("answer", "told"),
    [("1 / 0", "ZeroDivisionError: division by zero (mine.py, line 15"), ("{}, None", "gave no bev")],
)
def test_a_faulty_teacher_stops_the_run_at_once(program: Program, tmp_path: Path, answer: str, told: str) -> None:
    file = written(tmp_path, ('{"bev": torch.ones(4, 4, 2)}, None', answer))
    message = program.refused("cache-teacher", "--teacher", file, "--cache", "mine-cache")
    assert told in message
    assert message.count("mine.py:mine") <= 3, "told once, not once a scene"
    assert "failed:" not in message
    assert open_cache(Path("mine-cache")).scene_names == ()


def test_nan_in_the_middle_fails_its_scene_alone(program: Program, tmp_path: Path) -> None:
    answer = (
        "{\"bev\": torch.full((4, 4, 2), float('nan') if inputs.frame.step == 2 and "
        "inputs.frame.scene_name == 'scene-0001' else 1.0)}, None"
    )
    file = written(tmp_path, ('{"bev": torch.ones(4, 4, 2)}, None', answer))
    message = program.refused("cache-teacher", "--teacher", file, "--cache", "mine-cache")
    assert "scene-0001, step 2: bev holds values that are NaN" in message
    assert len(open_cache(Path("mine-cache")).scene_names) == 1
