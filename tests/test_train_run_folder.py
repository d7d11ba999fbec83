"""A run's folder has one writer, and never a half-written file under a final name."""

import subprocess
import sys
from pathlib import Path

import pytest

from schemas.errors import UserError
from train.run_folder import RunFolder, open_run_folder

HOLD = """
import sys
from pathlib import Path
from train.run_folder import open_run_folder
with open_run_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_lock_of_another_process_is_respected_and_dies_with_it(tmp_path: Path) -> None:
    repository = Path(__file__).resolve().parent.parent
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=repository,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=rf"writing to {tmp_path} \(process {holder.pid} on "),
            open_run_folder(tmp_path),
        ):
            pass
        holder.kill()
    with open_run_folder(tmp_path) as folder:
        assert folder.path == tmp_path


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write(folder.checkpoint, lambda path: path.write_text("first"))

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        folder.write(folder.checkpoint, fail)
    assert folder.checkpoint.read_text() == "first"
    folder.write(folder.checkpoint, lambda path: path.write_text("second"))
    assert folder.checkpoint.read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
