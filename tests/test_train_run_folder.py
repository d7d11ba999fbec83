"""A run's folder has one writer, and never a half-written file under a final name."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from train_world import CPU

from schemas.errors import CheckpointError, UserError
from train.checkpoint import Progress, TrainingState, load_checkpoint, save_checkpoint
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
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"writing last.pt failed: .*No space left.*GB are free.*OUT=") as caught:
        folder.write(folder.checkpoint, fail)
    assert isinstance(caught.value.__cause__, OSError)
    assert folder.checkpoint.read_text() == "first"
    folder.write(folder.checkpoint, lambda path: path.write_text("second"))
    assert folder.checkpoint.read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_checkpoint_on_a_full_disk_is_told_like_any_other_write(tmp_path: Path) -> None:
    folder, learner = RunFolder(tmp_path), torch.nn.Linear(100, 100)
    state = TrainingState(learner, torch.optim.AdamW(learner.parameters()), torch.amp.GradScaler("cpu"), CPU)
    with pytest.raises(UserError, match=r"writing last.pt failed: .*No space left"):
        folder.write(folder.checkpoint, lambda _: save_checkpoint(Path("/dev/full"), state, Progress(1), {}))


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(UserError, match=r"opening the training folder failed: .*OUT="),
        open_run_folder(tmp_path / "file" / "out"),
    ):
        pass


def test_a_checkpoint_of_another_programs_network_is_told(tmp_path: Path) -> None:
    def state_of(learner: torch.nn.Module) -> TrainingState:
        return TrainingState(learner, torch.optim.AdamW(learner.parameters()), torch.amp.GradScaler("cpu"), CPU)

    path = tmp_path / "last.pt"
    save_checkpoint(path, state_of(torch.nn.Linear(3, 2)), Progress(1), {"processes": 1})
    with pytest.raises(CheckpointError, match=r"(?s)other parameters than .*weight.*remove the file .*OUT="):
        load_checkpoint(path, state_of(torch.nn.Linear(4, 2)), {"processes": 1})
