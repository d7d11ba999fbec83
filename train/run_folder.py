"""The folder a training run writes to: one writer at a time, nothing half-written under a final name.

recipe.yaml          what ran (written by the program)
metrics.jsonl        one line per logged step
tensorboard/         the same for TensorBoard
last.pt              everything needed to go on
weights.safetensors  the detector alone, under its published names
"""

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import UserError


class RunFolder:
    """Names of a run's files. Make one with ``open_run_folder``, which holds the folder's lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard"
        self.checkpoint = path / "last.pt"
        self.weights = path / "weights.safetensors"

    def write(self, target: Path, writer: Callable[[Path], None]) -> None:
        """Write a file under another name, fsync it, then give it its own name: it is whole, or it is not there.

        Args:
            target: a file of this folder.
            writer: writes the path it is given.
        """
        partial = target.with_name(f".{target.name}.partial")
        writer(partial)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def open_run_folder(path: Path) -> Iterator[RunFolder]:
    """Make the folder if need be, and hold it for this process until the block ends or the process dies.

    Raises:
        UserError: another run is writing to it.
    """
    path.mkdir(parents=True, exist_ok=True)
    with (path / ".lock").open("a+") as lock:
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
        yield RunFolder(path)
