"""What the programs print, and how they end."""

import pytest
import torch
import typer

from pipeline.console import Tracker, print_table
from pipeline.failures import told_clearly
from schemas.errors import DataError


def test_a_tracker_says_what_was_done(capsys: pytest.CaptureFixture[str]) -> None:
    with Tracker("cache-teacher", 3, "frames") as tracker:
        tracker.advance()
        tracker.advance(2, note="scene-0001")
    assert "cache-teacher: 3/3 frames in " in capsys.readouterr().out


def test_a_task_refused_before_it_began_says_nothing_of_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError), Tracker("cache-teacher", 3, "frames"):
        raise DataError("no such scene")
    assert capsys.readouterr().out == ""


def test_a_task_that_failed_says_how_far_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    tracker = Tracker("cache-teacher", 3, "frames")
    tracker.advance()
    with pytest.raises(DataError), tracker:
        raise DataError("the image is torn")
    assert "cache-teacher: 1/3 frames in " in capsys.readouterr().out


def test_a_table_shows_its_rows(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("Score", ("class", "AP"), [("car", "0.50")])
    printed = capsys.readouterr().out
    assert "Score" in printed
    assert "car" in printed


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DataError("scene-0001: the image is torn."), "error: scene-0001: the image is torn."),
        (
            PermissionError(13, "Permission denied", "/data"),
            "error: The operating system refused: Permission denied (/data). "
            "Mend that place or its permissions, or name another, and run the same command again.",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.\nMore."),
            "error: The device ran out of memory: CUDA out of memory. Tried to allocate 1 GiB. Use smaller batches, "
            "for example --set student.training.batch_size=1, a smaller detector, or --device cpu.",
        ),
        (KeyboardInterrupt(), "error: Interrupted. Run it again."),
    ],
)
def test_a_foreseeable_failure_is_one_message_and_status_1(
    error: BaseException, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended, told_clearly("Run it again."):
        raise error
    assert ended.value.exit_code == 1
    assert capsys.readouterr().err.strip() == message


def test_a_defect_of_ours_is_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="an invariant broke"), told_clearly("Run it again."):
        raise RuntimeError("an invariant broke")
