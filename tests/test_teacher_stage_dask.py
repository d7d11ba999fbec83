"""The dask engine: real workers, killed, interrupted, on clusters of others; and what it says when it cannot work."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from deadly_teacher import DEADLY_SCENE
from distributed import Nanny, Scheduler, SpecCluster
from stage_runs import Heard, cached_serially, choice_of, files_of, scenes_in

from pipeline.teacher_stage import dask_cluster
from pipeline.teacher_stage.dask_cluster import (
    Build,
    SchedulerError,
    build_here,
    plan_workers,
    refuse_other_build,
    visible_gpus,
)
from pipeline.teacher_stage.dask_engine import cache_on_dask
from pipeline.teacher_stage.engine import EngineChoice
from schemas.errors import CacheError

REPOSITORY = Path(__file__).resolve().parent.parent
TEACHERS = REPOSITORY / "tests" / "deadly_teacher.py"
SCENES = ("scene-0001", "scene-0002")


class Killer(Heard):
    """Kills one worker as soon as both scenes are in the middle."""

    def frame_done(self, scene_name: str) -> None:
        super().frame_done(scene_name)
        if not self.failed and len(self.frames) == 2 and 2 in self.frames.values():
            worker = multiprocessing.active_children()[0]
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            self.failed["a worker"] = "killed"


def test_a_killed_worker_loses_nothing_but_its_scene_in_flight(tiny_world: Path, tmp_path: Path) -> None:
    expected, choice = (choice_of(tiny_world, tmp_path / name, file=f"{TEACHERS}:slow") for name in ("serial", "dask"))
    cached_serially(expected)
    heard = Killer()
    assert cache_on_dask(choice, EngineChoice("dask", workers=2), SCENES, heard) == {}
    assert heard.failed == {"a worker": "killed"}
    assert heard.frames == {"scene-0001": 4, "scene-0002": 4}
    assert [fidelity.frames for fidelity in heard.fidelity] in ([4], [])
    assert list((tmp_path / "dask" / ".writers" / "partial").iterdir()) == []
    assert files_of(tmp_path / "dask") == files_of(tmp_path / "serial")


@pytest.mark.slow
def test_a_scene_that_keeps_killing_its_worker_is_quarantined(tiny_world: Path, tmp_path: Path) -> None:
    choice, heard = choice_of(tiny_world, tmp_path / "cache", file=f"{TEACHERS}:deadly"), Heard()
    failures = cache_on_dask(choice, EngineChoice("dask", workers=2), SCENES, heard)
    assert list(failures) == [DEADLY_SCENE]
    assert f"run it alone with --engine serial --scenes {DEADLY_SCENE}" in failures[DEADLY_SCENE]
    assert heard.failed == failures
    assert scenes_in(tmp_path / "cache") == ("scene-0002",)


@pytest.fixture(scope="module")
def cluster() -> Iterator[SpecCluster]:
    """Somebody's cluster, with a worker of two threads."""
    options = {"nthreads": 2, "dashboard": False}
    made = SpecCluster(
        workers={0: {"cls": Nanny, "options": options}},
        scheduler={"cls": Scheduler, "options": {"dashboard": False, "dashboard_address": "127.0.0.1:0"}},
    )
    yield made
    made.close(timeout=30)


def test_a_cluster_that_runs_already(
    cluster: SpecCluster, tiny_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    choice, heard = choice_of(tiny_world, tmp_path / "cache", file=f"{TEACHERS}:noise"), Heard()
    engine = EngineChoice("dask", scheduler=cluster.scheduler_address)
    assert cache_on_dask(choice, engine, SCENES, heard) == {}
    assert heard.frames == {"scene-0001": 4, "scene-0002": 4}
    printed = " ".join(capsys.readouterr().out.split())
    assert f"Scheduler {cluster.scheduler_address}, 1 workers" in printed
    assert "start workers with --nthreads 1" in printed
    # Finished scenes are not begun again, and a worker that cannot open the cache stops the run.
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "receipts").iterdir()}
    assert cache_on_dask(choice, engine, SCENES, heard) == {}
    assert times == {path: path.stat().st_mtime_ns for path in times}
    other = choice_of(tiny_world, tmp_path / "cache")
    with pytest.raises(CacheError, match="was made differently"):
        cache_on_dask(other, engine, SCENES, heard)


def test_a_scene_that_cannot_be_read_fails_alone(cluster: SpecCluster, tiny_world: Path, tmp_path: Path) -> None:
    choice = choice_of(tiny_world, tmp_path / "cache", file=f"{TEACHERS}:nan")
    heard = Heard()
    failures = cache_on_dask(choice, EngineChoice("dask", scheduler=cluster.scheduler_address), SCENES, heard)
    assert list(failures) == [DEADLY_SCENE]
    assert "step 2" in failures[DEADLY_SCENE]
    assert scenes_in(tmp_path / "cache") == ("scene-0002",)


def test_a_scheduler_that_is_not_there(tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cluster, "_CONNECT_S", 0.5)
    engine = EngineChoice("dask", scheduler="tcp://127.0.0.1:9")
    with pytest.raises(SchedulerError, match=r"--scheduler tcp://127.0.0.1:9: no dask scheduler answers .*start it"):
        cache_on_dask(choice_of(tiny_world, tmp_path / "cache"), engine, SCENES, Heard())
    with pytest.raises(SchedulerError, match=r"for example tcp://10\.0\.0\.1:8786"):
        cache_on_dask(
            choice_of(tiny_world, tmp_path / "cache"), EngineChoice("dask", scheduler="nonsense"), SCENES, Heard()
        )


def test_a_worker_with_other_versions_is_refused() -> None:
    with pytest.raises(SchedulerError, match=r"worker tcp://a:1 .*torch 2.0\+cpu there, .* here.*same environment"):
        refuse_other_build(build_here(), Build(build_here().program, "2.0+cpu", build_here().numpy), "tcp://a:1")
    refuse_other_build(build_here(), build_here(), "tcp://a:1")


def test_the_cores_and_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cluster, "cores_here", lambda: 16)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,GPU-6")
    plan = plan_workers(EngineChoice("dask"), "cuda", None)
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in plan.environments] == ["4", "5", "GPU-6"]
    assert plan.threads == 5
    plan = plan_workers(EngineChoice("dask", workers=2), "cuda:1", 7)
    assert [dict(environment) for environment in plan.environments] == [{"OMP_NUM_THREADS": "7"}] * 2
    assert len(plan_workers(EngineChoice("dask"), "cpu", None).environments) == 1
    assert visible_gpus({}, 2) == ("0", "1")


def test_ctrl_c_closes_the_cluster_and_leaves_nothing(tiny_world: Path, tmp_path: Path) -> None:
    program = subprocess.Popen(
        [
            *(sys.executable, "-m", "pipeline", "cache-teacher", "--teacher", f"{TEACHERS}:long_after_first"),
            *("--engine", "dask", "--threads", "1", "--data", str(tiny_world), "--cache", str(tmp_path / "cache")),
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with program:
        while program.poll() is None and not (tmp_path / "cache" / "receipts" / "scene-0001.parquet").exists():
            time.sleep(0.05)
        os.killpg(program.pid, signal.SIGINT)
        printed, _ = program.communicate()
    assert program.returncode == 1, printed
    assert "error: Interrupted. Finished scenes are kept" in printed
    assert "Traceback" not in printed
    assert scenes_in(tmp_path / "cache") == ("scene-0001",)
    assert list((tmp_path / "cache" / ".writers" / "partial").iterdir()) == []
