"""Somebody else's teacher, watched: a mistake in it ends the run in one message that names the line in their file.

What a teacher gets wrong on the first frame of a process it gets wrong on all, so the run stops there. Later frames are
looked at by the quantiser, like every teacher's, and one that is not fit to be stored fails its scene alone. A teacher
that raises a ``UserError`` of its own fails the scene alone as well: so it can say that this frame's data are bad.
"""

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.teacher_stage.around_teacher import AroundTeacher
from pipeline.teacher_stage.network import DecodesBev, TeacherNetwork
from pipeline.teacher_stage.quantise import StoredFrame, quantise, refuse_unfit
from schemas.boxes import Boxes
from schemas.errors import CacheError, TeacherError, UserError
from schemas.frames import CameraInputs

_LONGEST_MESSAGE = 400


def guarded(network: TeacherNetwork, name: str, path: Path) -> TeacherNetwork:
    """The same teacher; its mistakes are raised as ``TeacherError``.

    Args:
        network: the teacher, which has all members.
        name: what messages call it.
        path: its file.
    """
    if isinstance(network, DecodesBev):
        return _GuardedDecoder(network, network, name, path)
    return _Guarded(network, name, path)


@contextmanager
def told_in_one_line(doing: str, path: Path) -> Iterator[None]:
    """Turn any exception but a ``UserError`` into a ``TeacherError`` with its last line in the file ``path``."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise TeacherError(f"{doing}: {_one_line(error, path)}.") from error


def _one_line(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{type(error).__name__}: {error.msg} ({Path(error.filename).name}, line {error.lineno})"
    message = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":").removesuffix(".")
    if len(message) > _LONGEST_MESSAGE:  # load_state_dict names every entry of both networks
        message = f"{message[:_LONGEST_MESSAGE]} ..."
    own = [call for call in traceback.extract_tb(error.__traceback__) if Path(call.filename).parent == path.parent]
    return f"{message} ({Path(own[-1].filename).name}, line {own[-1].lineno}: {own[-1].line})" if own else message


def _is_features_and_state(answer: object) -> bool:
    match answer:
        case (Mapping() as found, _):
            return all(isinstance(value, Tensor) for value in found.values())
    return False


def _kind(answer: object) -> str:
    if isinstance(answer, tuple):
        return ", ".join(map(_kind, answer))
    if isinstance(answer, Mapping):
        return "{" + ", ".join(f"{name}: {type(value).__name__}" for name, value in answer.items()) + "}"
    return type(answer).__name__


class _Guarded(AroundTeacher):
    """A ``TeacherNetwork`` around somebody's."""

    def __init__(self, network: TeacherNetwork, name: str, path: Path) -> None:
        super().__init__(network)
        self._name, self._path = name, path
        self._proven = False

    def features(self, inputs: CameraInputs, previous: Any) -> tuple[Mapping[str, Tensor], Any]:
        """One keyframe.

        Raises:
            TeacherError: the teacher raised, or its first frame is not what its specs promise.
        """
        where = f"scene {inputs.frame.scene_name}, step {inputs.frame.step}"
        with told_in_one_line(f"The teacher {self._name} failed at {where}", self._path):
            answer = self._network.features(inputs, previous)
        if not _is_features_and_state(answer):
            raise TeacherError(
                f"The teacher {self._name} gave {_kind(answer)} at {where}: features() must return a mapping of "
                "tensors by feature name, and the state for the next frame."
            )
        found, state = answer
        if not self._proven:
            self._prove(found, where)
        return found, state

    def _prove(self, found: Mapping[str, Tensor], where: str) -> None:
        """Have the quantiser look at every promised feature once.

        Raises:
            TeacherError: one of them is not fit to be stored.
        """
        specs = self._network.feature_specs()
        try:
            frame = quantise(specs, found, "int8")
            refuse_unfit(specs, StoredFrame({}, frame.extremes.cpu()), "int8")
        except CacheError as error:
            raise TeacherError(
                f"The teacher {self._name} does not keep its promises; at {where}: {error}. "
                f"Mend {self._path.name}; nothing of this scene was stored."
            ) from error
        self._proven = True


class _GuardedDecoder(_Guarded):
    """A ``DecodesBev`` around somebody's."""

    def __init__(self, network: TeacherNetwork, decoder: DecodesBev, name: str, path: Path) -> None:
        super().__init__(network, name, path)
        self._decoder = decoder

    def boxes_from_bev(self, bev: Tensor) -> Boxes:
        """As the teacher's.

        Raises:
            TeacherError: it raised, or gave something else.
        """
        with told_in_one_line(f"The teacher {self._name} failed in boxes_from_bev", self._path):
            boxes = self._decoder.boxes_from_bev(bev)
        if not isinstance(boxes, Boxes):
            raise TeacherError(f"The teacher {self._name}: boxes_from_bev gave a {type(boxes).__name__}, not Boxes.")
        return boxes
