"""The folder a training run writes to: one writer at a time, nothing half-written under a final name.

recipe.yaml          what ran
initialised.json     the files of weights that the run began with, where any were given
inherited.json       the teacher's tensors that the student began with, where it inherited any
metrics.jsonl        one line per logged step
tensorboard/         the same for TensorBoard
scores.jsonl         one line per periodic evaluation
best.safetensors     the weights that scored best so far
best.json            their score
last.pt              everything needed to go on
weights.safetensors  the detector as training left it, under its published names
"""

import fcntl
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from schemas.errors import UserError
from train.distributed import ALONE, Processes


class RunFolder:
    """Names of a run's files. Make one with ``open_run_folder``, which holds the folder's lock.

    Args:
        path: the folder.
        writes: whether this process writes to it; of several that train together the first alone does.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path = path
        self.writes = writes
        self.recipe = path / "recipe.yaml"
        self.initialised = path / "initialised.json"
        self.inherited = path / "inherited.json"
        self.metrics = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard"
        self.scores = path / "scores.jsonl"
        self.best = path / "best.safetensors"
        self.best_score = path / "best.json"
        self.checkpoint = path / "last.pt"
        self.weights = path / "weights.safetensors"

    def write(self, target: Path, writer: Callable[[Path], object]) -> None:
        """Write a file under another name, fsync it, then give it its own name: it is whole, or it is not there.

        Nothing happens in a process that does not write.

        Args:
            target: a file of this folder.
            writer: writes the path it is given.

        Raises:
            UserError: the disk refuses; what was there before is untouched.
        """
        if not self.writes:
            return
        partial = target.with_name(f".{target.name}.partial")
        with disk_errors(f"writing {target.name}", target):
            try:
                writer(partial)
                _fsync(partial, os.O_RDONLY)
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
            _fsync(target.parent, os.O_RDONLY | os.O_DIRECTORY)


@contextmanager
def open_run_folder(path: Path, processes: Processes = ALONE) -> Iterator[RunFolder]:
    """Make the folder if need be, and hold it until the block ends or the process dies.

    The first process holds it for all that train together.

    Raises:
        UserError: another run is writing to it, or it cannot be made.
    """
    with ExitStack() as held:
        processes.first_alone(lambda: held.enter_context(_held(path)))
        yield RunFolder(path, writes=processes.is_first)


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """The folder, made and locked."""
    with disk_errors("opening the training folder", path):
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / ".lock").open("a+")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UserError(
                f"another training run is writing to {path} ({lock.read().strip() or 'it does not say which'}). "
                "Wait for it, stop it, or choose another folder with OUT=..."
            ) from None
        lock.seek(0)
        lock.truncate()
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        yield


@contextmanager
def disk_errors(doing: str, path: Path) -> Iterator[None]:
    """Turn what a full or forbidden disk raises into a message for people.

    Args:
        doing: what was going on, as a gerund phrase.
        path: the file or folder concerned.

    Raises:
        UserError: chained from the ``OSError``.
    """
    try:
        yield
    except FileExistsError as error:
        raise UserError(
            f"{doing} failed: {path} is a file, expected a folder. Choose another one with OUT=..., or move it away."
        ) from error
    except OSError as error:
        existing = next(folder for folder in [path, *path.parents] if folder.exists())
        raise UserError(
            f"{doing} failed: {error.strerror or error} ({error.filename or path}; "
            f"{shutil.disk_usage(existing).free / 1e9:.2f} GB are free there). Mend that place or its permissions, or "
            "choose another folder with OUT=...; what was saved before is whole."
        ) from error


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
