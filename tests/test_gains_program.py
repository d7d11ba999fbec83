"""``gains`` end to end on a tiny world: real processes, few steps; what is done is kept, and stopping is gentle."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path

import pytest
from program import SMALL, Program

from pipeline.gains import conduct, run_row
from pipeline.gains.record import read_records
from pipeline.gains.workers import Process, run_all

FEW_STEPS = (*SMALL, "--set=student.training.steps=2")


@pytest.fixture
def program(tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    return Program(tiny_world, tmp_path, monkeypatch)


def test_two_rows_from_the_cache_to_the_report(program: Program) -> None:
    program.succeeded("cache-teacher", "--untrained", sets=FEW_STEPS)
    arguments = ("--rows", "none,feature", "--seeds", "3", "--jobs", "2", "--cache", "out/demo/teacher-cache")
    arguments = (*arguments, "--allow-untrained-teacher")
    printed = program.succeeded("gains", *arguments, sets=FEW_STEPS)
    assert "2 runs planned, 0 in results/demo/rows.csv already, 2 to do" in printed
    assert "The report is docs/results.md." in printed

    rows = Path("results/demo/rows.csv")
    runs = {record.row: record for record in read_records(rows)}
    assert set(runs) == {"none", "feature"}
    for record in runs.values():
        assert (record.seed, record.steps, record.split, record.threads) == (3, 2, "val", 1)
        assert record.peak_rss_mib is not None
        assert record.peak_rss_mib > 100
        assert 0 < record.data_wait < 1
        assert record.wall_s > 0
        assert len(record.class_ap) == 10
    assert runs["none"].cache == "none"
    assert len(runs["feature"].cache) == 12
    assert "| `feature` | **1 of 5** |" in Path("docs/results.md").read_text()

    before = rows.read_bytes()
    printed = program.succeeded("gains", *arguments, sets=FEW_STEPS)
    assert "2 runs planned, 2 in results/demo/rows.csv already, 0 to do" in printed
    assert rows.read_bytes() == before

    shutil.rmtree("docs")
    report = program.succeeded("gains", "--report", sets=())
    assert "The report is docs/results.md." in report
    assert Path("docs/results-gains.png").exists()


def in_this_process(
    processes: Sequence[Process],
    jobs: int,
    on_start: Callable[[int], None],
    on_end: Callable[[int, int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As ``run_all``, without the seconds that a process takes to start."""
    for number, process in enumerate(processes):
        on_start(number)
        monkeypatch.setattr(sys, "argv", ["run_row", process.command[-1]])
        with process.log.open("a") as log, redirect_stdout(log), redirect_stderr(log):
            status = 0
            try:
                run_row.main()
            except SystemExit as ended:
                status = int(str(ended.code))
        on_end(number, status)


@pytest.fixture
def quick(program: Program, monkeypatch: pytest.MonkeyPatch) -> Program:
    monkeypatch.setattr(conduct, "run_all", partial(in_this_process, monkeypatch=monkeypatch))
    return program


def test_a_tuning_run_is_filed_with_its_label(quick: Program) -> None:
    printed = quick.succeeded("gains", "--rows", "none", "--seeds", "100", "--tune", "two steps", sets=FEW_STEPS)
    assert "On the tune scenes" in printed
    (run,) = read_records(Path("results/demo/tuning.csv"))
    assert (run.label, run.split, run.overrides[-1]) == ("two steps", "tune", "student.training.steps=2")
    assert not Path("docs").exists()


def test_a_run_that_fails_is_told_and_nothing_is_filed(quick: Program) -> None:
    bad = (*FEW_STEPS, "--set=student.training.optimizer.lr=1e30", "--set=student.training.optimizer.warmup_steps=0")
    refused = quick.refused("gains", "--rows", "none", "--seeds", "100", "--tune", "too fast", sets=bad)
    assert "1 of 1 runs failed: none, seed 100: " in refused
    assert "error: training stopped at step " in refused
    assert read_records(Path("results/demo/tuning.csv")) == ()


def test_a_stopped_run_goes_on_and_gives_what_it_would_have(quick: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("--rows", "none", "--seeds", "0", "--tune", "whole")
    quick.succeeded("gains", *arguments, "--out", "whole", sets=FEW_STEPS)
    results = Path("results/demo/tuning.csv")
    (whole,) = read_records(results)
    results.unlink()

    train = run_row.train_with_progress
    monkeypatch.setattr(
        run_row, "train_with_progress", lambda title, recipe, run, _: stopped(train, title, recipe, run)
    )
    printed = quick.refused("gains", *arguments, "--out", "halves", sets=FEW_STEPS)
    assert "Interrupted. The state is saved" in printed
    monkeypatch.setattr(run_row, "train_with_progress", train)
    quick.succeeded("gains", *arguments, "--out", "halves", sets=FEW_STEPS)
    (halves,) = read_records(results)
    assert (whole.resumed_at, halves.resumed_at) == (0, 1)
    assert (halves.nds, halves.class_ap) == (whole.nds, whole.class_ap)


def stopped(train: Callable[..., object], *arguments: object) -> None:
    train(*arguments, 1)
    raise KeyboardInterrupt


def test_options_that_say_nothing_are_refused(program: Program) -> None:
    assert "--tune needs a label" in program.refused("gains", "--tune", " ")
    share = "--set=student.training.distillation.weighting.share=0.1"
    told = program.refused("gains", "--rows", "none", sets=(share,))
    assert "each row says how it distils" in told
    assert "--tune LABEL" in told
    assert "--seeds '0,x': expected whole numbers" in program.refused("gains", "--seeds", "0,x")
    assert "No run of the study is finished yet" in program.refused("gains", "--report")
    assert "takes no --rows, --seeds or --tune" in program.refused("gains", "--report", "--rows", "none")


def python(folder: Path, name: str, code: str) -> Process:
    return Process(name, (sys.executable, "-c", code), folder / f"{name}.txt")


def test_processes_run_a_few_at_once_and_tell_how_they_ended(tmp_path: Path) -> None:
    ended: dict[int, int] = {}
    running: list[int] = []
    most = 0

    def started(number: int) -> None:
        nonlocal most
        running.append(number)
        most = max(most, len(running))

    def done(number: int, status: int) -> None:
        running.remove(number)
        ended[number] = status

    codes = ("print('well')", "raise SystemExit(3)", "import os; print(os.environ['OMP_NUM_THREADS'])")
    run_all([python(tmp_path, str(number), code) for number, code in enumerate(codes)], 2, started, done)
    assert ended == {0: 0, 1: 3, 2: 0}
    assert most == 2
    assert (tmp_path / "0.txt").read_text() == "well\n"
    assert (tmp_path / "2.txt").read_text() == "1\n"


SLEEPER = """
import signal, sys, time
from pathlib import Path
def stop(*_):
    print("saved", flush=True)
    sys.exit(1)
signal.signal(signal.SIGTERM, stop)
Path({flag!r}).touch()
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_every_process_gently(tmp_path: Path, number: int) -> None:
    flags = [tmp_path / "first", tmp_path / "second"]
    sleepers = [python(tmp_path, f"p{place}", SLEEPER.format(flag=str(flag))) for place, flag in enumerate(flags)]

    def started(place: int) -> None:
        while not flags[place].exists():
            time.sleep(0.02)
        if place == 1:
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        run_all([*sleepers, python(tmp_path, "never", "print('begun')")], 2, started, lambda *_: None)
    assert [(tmp_path / f"p{place}.txt").read_text() for place in range(2)] == ["saved\n", "saved\n"]
    assert not (tmp_path / "never.txt").exists()
