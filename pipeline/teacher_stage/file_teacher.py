"""A teacher of one's own: a Python file with a function that returns a ``TeacherNetwork``.

``docs/bring_your_own_teacher.md`` tells how to write one.
"""

import hashlib
import importlib.util
import json
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from pipeline.teacher_stage.guarded_teacher import guarded
from pipeline.teacher_stage.network import TeacherNetwork
from schemas.bev_grid import BevGrid
from schemas.errors import RecipeError, UserError
from schemas.features import FeatureSpec
from schemas.preprocessing import Preprocessing

_HOW = "docs/bring_your_own_teacher.md shows one"


@dataclass(frozen=True)
class FileTeacher:
    """A teacher that a file gave.

    Attributes:
        name: ``file.py:function``, without the folder: what a cache says of it holds on every machine.
        architecture: JSON with the sha256 of the file's text, so that an edited teacher is another teacher.
        network: what it returned, its mistakes told in words.
    """

    name: str
    architecture: str
    network: TeacherNetwork


def open_file_teacher(file: str, checkpoint: Path | None, device: torch.device) -> FileTeacher:
    """Run a teacher file and call its function as ``function(checkpoint, device)``.

    Args:
        file: ``FILE.py:function``. The folder of the file can be imported from while this runs.
        checkpoint: handed on as it is.
        device: where the teacher is to compute.

    Raises:
        RecipeError: no such file or function; the file or the function raises; or what it returns is not a
            ``TeacherNetwork``.
    """
    path, function_name = _parts(file)
    text = _read(path, file)
    with _importable(path.parent):
        module = _run(path, file)
        function = getattr(module, function_name, None)
        if not callable(function):
            found = sorted(name for name, value in vars(module).items() if callable(value) and _is_own(value, module))
            raise RecipeError(
                f"--teacher {file}: {path.name} has no function {function_name}; it has {', '.join(found) or 'none'}."
            )
        try:
            network = function(checkpoint, device)
        except UserError:
            raise
        except Exception as error:
            raise RecipeError(f"--teacher {file}: {function_name} raised {in_their_file(error, path)}.") from error
    name = f"{path.name}:{function_name}"
    specs = _checked(network, name)
    architecture = json.dumps(
        {"file": path.name, "function": function_name, "sha256": hashlib.sha256(text).hexdigest()}
    )
    return FileTeacher(name, architecture, guarded(network, name, specs, path))


def in_their_file(error: BaseException, path: Path) -> str:
    """An exception in one line: its type, its message, and the last line of the user's file that led to it."""
    message = f"{type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{type(error).__name__}: {error.msg} ({Path(error.filename).name}, line {error.lineno})"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent == path.parent]
    if not own:
        return message
    last = own[-1]
    return f"{message} ({Path(last.filename).name}, line {last.lineno}, in {last.name}: {last.line})"


def _parts(file: str) -> tuple[Path, str]:
    path, colon, function = file.rpartition(":")
    if not colon or not path.endswith(".py") or not function.isidentifier():
        raise RecipeError(f"--teacher {file}: expected FILE.py:function, for example my_teacher.py:load; {_HOW}.")
    return Path(path).resolve(), function


def _read(path: Path, file: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RecipeError(f"--teacher {file}: cannot read {path}: {error.strerror}.") from error


def _run(path: Path, file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"teacher_file_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look their module up by name
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:
        raise RecipeError(f"--teacher {file}: {path.name} cannot be run: {in_their_file(error, path)}.") from error
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """The folder's modules can be imported, and are forgotten afterwards: none of them may pass for another's later."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
        tops = {name for name, module in sys.modules.items() if name not in before and _home(module) == folder}
        for name in [name for name in sys.modules if name.partition(".")[0] in tops]:
            del sys.modules[name]


def _home(module: ModuleType) -> Path | None:
    """The folder that a top-level module or package lies in."""
    file = getattr(module, "__file__", None)
    if file is None or "." in module.__name__ or module.__name__.startswith("teacher_file_"):
        return None
    path = Path(file).resolve()
    return path.parent.parent if path.name == "__init__.py" else path.parent


def _is_own(value: object, module: ModuleType) -> bool:
    return getattr(value, "__module__", None) == module.__name__


def _checked(network: Any, name: str) -> tuple[FeatureSpec, ...]:
    """The network's specs, when it is a teacher at all.

    Raises:
        RecipeError: it is not; everything that is missing is named.
    """
    members = ("preprocessing", "grid", "class_names", "feature_specs", "features", "state_dict")
    missing = [member for member in members if not hasattr(network, member)]
    if missing:
        raise RecipeError(
            f"--teacher {name} returned {_kind(network)}, which is no teacher: it has no {', '.join(missing)}; {_HOW}."
        )
    kinds = {"preprocessing": Preprocessing, "grid": BevGrid}
    for member, kind in kinds.items():
        if not isinstance(getattr(network, member), kind):
            found = _kind(getattr(network, member))
            raise RecipeError(f"--teacher {name}: its {member} is {found}, expected a {kind.__name__}; {_HOW}.")
    for member in ("feature_specs", "features", "state_dict"):
        if not callable(getattr(network, member)):
            raise RecipeError(f"--teacher {name}: its {member} is {_kind(getattr(network, member))}, not a method.")
    classes = network.class_names
    if not isinstance(classes, tuple) or not classes or not all(isinstance(each, str) for each in classes):
        raise RecipeError(f"--teacher {name}: its class_names are {classes!r}, expected a tuple of names.")
    return _checked_specs(network, name)


def _checked_specs(network: Any, name: str) -> tuple[FeatureSpec, ...]:
    specs = network.feature_specs()
    if not isinstance(specs, tuple) or not specs:
        raise RecipeError(f"--teacher {name}: feature_specs() gives {specs!r}, expected a tuple of FeatureSpec.")
    for spec in specs:
        if not isinstance(spec, FeatureSpec):
            raise RecipeError(f"--teacher {name}: feature_specs() holds {_kind(spec)}, expected FeatureSpec; {_HOW}.")
    names = [spec.name for spec in specs]
    twice = sorted({each for each in names if names.count(each) > 1})
    if twice:
        raise RecipeError(f"--teacher {name}: feature_specs() names {', '.join(twice)} twice; names must differ.")
    return specs


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
