"""The dask cluster that the teacher stage runs on: one made here, or one that runs already."""
# mypy: allow-untyped-calls

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import resource_tracker
from tempfile import TemporaryDirectory
from typing import Any

import torch
from distributed import Client, Nanny, Scheduler, SpecCluster

from pipeline.console import console
from pipeline.teacher_stage.engine import EngineChoice
from schemas.errors import UserError

_CONNECT_S = 10.0
_CLOSE_S = 120.0
"""A worker that is just starting, after another was killed, closes only when it is up; a busy machine delays that."""
_DEATHS_ALLOWED = 1
"""A scene's workers that may die before dask gives the scene up, on a cluster made here."""


class SchedulerError(UserError):
    """The dask cluster cannot be used, or was lost."""


@dataclass(frozen=True)
class Build:
    """What may change a byte of the cache between two machines, the device apart."""

    program: str
    torch: str
    numpy: str


def build_here() -> Build:
    """Of this process."""
    return Build(version("bev-teacher-cache"), version("torch"), version("numpy"))


def refuse_other_build(expected: Build, found: Build, worker: str) -> None:
    """Keep a worker from adding to the cache what another machine would not.

    Raises:
        SchedulerError: it runs other versions than the program that sends it scenes.
    """
    ours, theirs = asdict(expected), asdict(found)
    differing = [f"{name} {theirs[name]} there, {ours[name]} here" for name in ours if ours[name] != theirs[name]]
    if differing:
        raise SchedulerError(
            f"The worker {worker} would compute other bytes: {'; '.join(differing)}. "
            "Start scheduler and workers from the same environment and checkout as this program (docs/clusters.md)."
        )


def cores_here() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class WorkerPlan:
    """The worker processes of a cluster on this machine.

    Attributes:
        environments: of each worker, in order.
        threads: torch's threads in each.
    """

    environments: tuple[Mapping[str, str], ...]
    threads: int


def plan_workers(engine: EngineChoice, device: str, threads: int | None) -> WorkerPlan:
    """One worker for each visible GPU, or one on a CPU, unless their number is given; the cores are shared out.

    Args:
        engine: may give the number of workers.
        device: where the teachers run; with ``cuda`` every worker sees one GPU, and calls it ``cuda``.
        threads: torch's threads in each worker; None for an equal share of the cores.
    """
    gpus = visible_gpus(os.environ, torch.cuda.device_count()) if device == "cuda" else ()
    workers = engine.workers or max(1, len(gpus))
    threads = threads or max(1, cores_here() // workers)
    environments = [{"OMP_NUM_THREADS": str(threads)} for _ in range(workers)]
    for number, environment in enumerate(environments):
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    return WorkerPlan(tuple(environments), threads)


def visible_gpus(environment: Mapping[str, str], count: int) -> tuple[str, ...]:
    """Names of the GPUs that a process with this environment sees, as ``CUDA_VISIBLE_DEVICES`` gives them."""
    named = environment.get("CUDA_VISIBLE_DEVICES")
    return tuple(map(str, range(count))) if named is None else tuple(named.split(","))[:count]


@contextmanager
def local_client(plan: WorkerPlan) -> Iterator[Client]:
    """A client of a cluster on this machine that is closed with it, workers in the middle of a scene included.

    Ctrl-C reaches this process only.
    """
    with TemporaryDirectory(prefix="teacher-workers-") as scratch:
        options = {
            "nthreads": 1,
            "memory_limit": 0,  # dask's own would stop a worker at a share of memory that suits no teacher
            "local_directory": scratch,
            "dashboard": False,
            "silence_logs": logging.ERROR,
            "config": {"distributed.worker.profile.enabled": False},
        }
        workers = {
            number: {"cls": Nanny, "options": options | {"env": dict(environment)}}
            for number, environment in enumerate(plan.environments)
        }
        scheduler = {
            "cls": Scheduler,
            "options": {
                "host": "127.0.0.1",
                "port": 0,
                "allowed_failures": _DEATHS_ALLOWED,
                "dashboard": _has_dashboard(),
                "dashboard_address": "127.0.0.1:8787" if _port_is_free(8787) else "127.0.0.1:0",
            },
        }
        with _dask_logs(logging.ERROR), _interrupts_held_back():  # no thread or process of the cluster takes one
            cluster = SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.ERROR)
            client = Client(cluster, set_as_default=False)
        try:
            with _dask_logs(logging.ERROR):
                yield client
        finally:
            with _dask_logs(logging.CRITICAL), _interrupts_held_back():  # a worker that is just starting dies loudly
                client.close(timeout=_CLOSE_S)
                cluster.close(timeout=_CLOSE_S)


@contextmanager
def remote_client(address: str) -> Iterator[Client]:
    """A client of a cluster that runs already; it goes on running.

    Raises:
        SchedulerError: there is none at that address, or it runs another dask.
    """
    try:
        with _dask_logs(logging.ERROR), _interrupts_held_back():
            client = Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise SchedulerError(
            f"--scheduler {address}: no dask scheduler answers there within {_CONNECT_S:.0f} s ({error}). Expected the "
            "address that `dask scheduler` prints when it starts, for example tcp://10.0.0.1:8786; start it with "
            f"`{sys.executable} -m distributed.cli.dask_scheduler`, and workers with `dask worker ADDRESS "
            "--nthreads 1 --memory-limit 0` (docs/clusters.md). Without --scheduler a cluster is made on this machine."
        ) from error
    try:
        versions = client.get_versions(check=False)
        assert isinstance(versions, dict), "the client is not asynchronous"
        _refuse_other_dask(versions)
        with _dask_logs(logging.ERROR):
            yield client
    finally:
        client.close(timeout=_CLOSE_S)


def threads_of_workers(client: Client) -> int:
    """Torch's threads in each worker, so that the busiest machine's cores are shared out and all compute the same."""
    if not client.scheduler_info()["workers"]:
        console.print("Waiting for the first worker ...")
        client.wait_for_workers(1)
    hosts = [worker["host"] for worker in client.scheduler_info()["workers"].values()]
    cores = [int(cores) for cores in client.run(cores_here).values()]
    return max(1, min(cores) // max(hosts.count(host) for host in hosts))


def address_of(client: Client) -> str:
    """Of its scheduler."""
    return str(client.scheduler_info()["address"])


def tell_about(client: Client) -> None:
    """Print the workers and the dashboard's address."""
    workers = client.scheduler_info()["workers"]
    console.print(f"Scheduler {address_of(client)}, {len(workers)} workers", soft_wrap=True)
    crowded = sorted(address for address, worker in workers.items() if worker["nthreads"] > 1)
    if crowded:
        console.print(
            f"Workers with more than one thread: {', '.join(crowded)}. Each has one teacher, so its scenes wait for "
            "one another while other workers may be idle: start workers with --nthreads 1.",
            style="yellow",
            soft_wrap=True,
        )
    advice = "" if _has_dashboard() else " (needs bokeh: pip install 'bokeh>=3.1')"
    console.print(f"Dashboard {client.dashboard_link}{advice}", soft_wrap=True)


@contextmanager
def _dask_logs(level: int) -> Iterator[None]:
    """What dask tells at ``level`` only: it tells every coming and going of a worker otherwise."""
    logger = logging.getLogger("distributed")
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let Ctrl-C wait until the block ends. Threads and processes begun in it never see one."""
    resource_tracker.ensure_running()  # whoever starts it lets Ctrl-C in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _port_is_free(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) != 0


def _has_dashboard() -> bool:
    return find_spec("bokeh") is not None


def _refuse_other_dask(versions: Mapping[str, Any]) -> None:
    """Another dask or Python cannot be relied on to understand what is sent.

    Raises:
        SchedulerError: the scheduler's or a worker's differs from ours.
    """
    ours = _dask_of(versions["client"])
    others = {"the scheduler": versions["scheduler"], **versions["workers"]}
    for who, found in others.items():
        if found is not None and _dask_of(found) != ours:
            raise SchedulerError(
                f"{who} runs {_words(_dask_of(found))}, this program {_words(ours)}. "
                "Start scheduler and workers from the same environment as this program (docs/clusters.md)."
            )


def _dask_of(versions: Mapping[str, Any]) -> Sequence[str]:
    python = ".".join(str(versions["host"]["python"]).split(".")[:2])
    return python, str(versions["packages"]["dask"]), str(versions["packages"]["distributed"])


def _words(dask: Sequence[str]) -> str:
    return f"Python {dask[0]}, dask {dask[1]}, distributed {dask[2]}"
