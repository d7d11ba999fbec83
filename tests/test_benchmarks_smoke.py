"""Every measurement runs at a tiny size and prints its table; no figure of it is looked at."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import machine

TINY = {
    "clip_stream": ("--scenes", "1", "--steps", "8", "--cells", "8"),
    "one_core": ("--scenes", "1", "--steps", "8", "--cells", "8"),
    "foreground": ("--steps", "2", "--cells", "16"),
    "writing": ("--steps", "3", "--cells", "8"),
    "opening": ("--scenes", "4", "--frames", "161", "--table-scenes", "1"),
    "writer_memory": ("--cells", "8"),
    "caching_overhead": ("--scenes", "1", "--steps", "2", "--threads", "1"),
    "delivered": ("--scenes", "2", "--steps", "8", "--cells", "8"),
    "online_teacher": ("--scenes", "4", "--steps", "4", "--threads", "1", "--warm-up", "1", "--timed", "1"),
    "loss_exactness": ("--scenes", "2", "--steps", "3"),
    "data_wait": ("--scenes", "1", "--steps", "8", "--cells", "8", "--timed", "2"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_it_runs_and_prints_a_table(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--rounds", "1", "--folder", str(tmp_path), *TINY[name]]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    finished = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)

    assert finished.returncode == 0, finished.stderr
    rows = [line for line in finished.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) > 1
    assert len({line.count("|") for line in rows}) <= 2, "one or two tables, each of whole rows"
    assert list(tmp_path.iterdir()) == [], "its data are removed"


@pytest.mark.parametrize("name", ["one_core", "foreground"])
def test_a_missing_peer_gets_a_row(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = __import__(f"benchmarks.{name}", fromlist=["main"])
    monkeypatch.setattr(machine, "find_spec", lambda _: None)
    monkeypatch.setattr(module, "pin", lambda _: None)

    module.main(["--rounds", "1", "--folder", str(tmp_path), *TINY[name]])

    printed = capsys.readouterr().out
    assert "not installed: `pip install -e '.[bench]'`" in printed
    assert "zarr-python" in printed
