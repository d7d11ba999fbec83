"""A teacher of one's own: a Python file with a function that returns a ``TeacherNetwork``.

``docs/bring_your_own_teacher.md`` tells how to write one.
"""

import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from pipeline.teacher_stage.guarded_teacher import guarded, told_in_one_line
from pipeline.teacher_stage.network import TeacherNetwork
from schemas.bev_grid import BevGrid
from schemas.errors import RecipeError
from schemas.features import FeatureSpec
from schemas.preprocessing import Preprocessing

_HOW = "docs/bring_your_own_teacher.md shows how to write one"
_MODULE_PREFIX = "teacher_file_"


@dataclass(frozen=True)
class FileTeacher:
    """A teacher that a file gave.

    Attributes:
        name: ``file.py:function``, without the folder: what a cache says of it holds on every machine.
        architecture: JSON with the sha256 of the file's text, so that an edited teacher is another teacher.
        network: what it returned, watched by ``guarded``.
    """

    name: str
    architecture: str
    network: TeacherNetwork


def open_file_teacher(file: str, checkpoint: Path | None, device: torch.device) -> FileTeacher:
    """Run a teacher file and call its function as ``function(checkpoint, device)``.

    Args:
        file: ``FILE.py:function``. Modules beside the file can be imported while it runs, and are forgotten afterwards.
        checkpoint: handed on as it is.
        device: where the teacher is to compute.

    Raises:
        RecipeError: no such file or function, or what it returns is not a ``TeacherNetwork`` in evaluation mode.
        TeacherError: the file or the function raises.
    """
    path, function_name = _parts(file)
    text = _read(path, file)
    with _importable(path.parent):
        module = _run(path, file)
        function = getattr(module, function_name, None)
        if not callable(function):
            raise RecipeError(
                f"--teacher {file}: {path.name} has no function {function_name}; it has {_functions(module)}."
            )
        with told_in_one_line(f"--teacher {file}: {function_name} raised", path):
            network = function(checkpoint, device)
    name = f"{path.name}:{function_name}"
    _refuse_no_teacher(network, name, path)
    described = {"file": path.name, "function": function_name, "sha256": hashlib.sha256(text).hexdigest()}
    return FileTeacher(name, json.dumps(described), guarded(network, name, path))


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
    spec = importlib.util.spec_from_file_location(f"{_MODULE_PREFIX}{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look their module up by its name
    with told_in_one_line(f"--teacher {file}: {path.name} cannot be run", path):
        spec.loader.exec_module(module)
    return module


def _functions(module: ModuleType) -> str:
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    return ", ".join(name for name in sorted(own) if not name.startswith("_")) or "none"


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Modules in the folder can be imported; none of them stays to pass for another program's later."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        if str(folder) not in sys.path:  # else they can be imported anyway
            theirs = {name for name, module in sys.modules.items() if name not in before and _home(module) == folder}
            for name in [name for name in sys.modules if name.partition(".")[0] in theirs]:
                del sys.modules[name]


def _home(module: ModuleType) -> Path | None:
    """The folder that a top-level module or package lies in; None for anything else."""
    file = getattr(module, "__file__", None)
    if file is None or "." in module.__name__ or module.__name__.startswith(_MODULE_PREFIX):
        return None
    path = Path(file).resolve()
    return path.parent.parent if path.name == "__init__.py" else path.parent


def _refuse_no_teacher(network: Any, name: str, path: Path) -> None:
    """Check all members but what ``features`` gives, which the first frame shows.

    Raises:
        RecipeError: the network is not a teacher; everything that is missing is named.
        TeacherError: a member raises.
    """
    members = ("preprocessing", "grid", "class_names", "feature_specs", "features", "state_dict")
    with told_in_one_line(f"--teacher {name}: reading its members raised", path):
        missing = [member for member in members if not hasattr(network, member)]
        if missing:
            lacks = ", ".join(missing)
            raise RecipeError(f"--teacher {name} returned {_kind(network)}, which is no teacher: no {lacks}; {_HOW}.")
        _refuse(name, "preprocessing", network.preprocessing, Preprocessing)
        _refuse(name, "grid", network.grid, BevGrid)
        _refuse_other_names(name, "class_names", network.class_names)
        for member in ("feature_specs", "features", "state_dict"):
            if not callable(getattr(network, member)):
                raise RecipeError(f"--teacher {name}: its {member} is {_kind(getattr(network, member))}, not a method.")
        specs = network.feature_specs()
        if not isinstance(specs, tuple) or not specs:
            raise RecipeError(f"--teacher {name}: feature_specs() gives {specs!r}, expected a tuple of FeatureSpec.")
        for spec in specs:
            _refuse(name, "feature_specs() entry", spec, FeatureSpec)
        _refuse_other_names(name, "feature_specs() names", tuple(spec.name for spec in specs))
        for key, value in network.state_dict().items():
            _refuse(name, f"state_dict()[{key!r}]", value, torch.Tensor)
    if isinstance(network, nn.Module) and any(part.training for part in network.modules()):
        raise RecipeError(f"--teacher {name} is in training mode, so its answers would vary: return network.eval().")


def _refuse(name: str, member: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise RecipeError(f"--teacher {name}: its {member} is {_kind(value)}, expected a {kind.__name__}; {_HOW}.")


def _refuse_other_names(name: str, member: str, values: object) -> None:
    match values:
        case (str(), *_) if isinstance(values, tuple) and all(isinstance(each, str) for each in values):
            if len(set(values)) == len(values):
                return
    raise RecipeError(f"--teacher {name}: its {member} are {values!r}, expected a tuple of names, each once.")


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
