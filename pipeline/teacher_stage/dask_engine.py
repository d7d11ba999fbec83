"""The engine of many processes and machines: dask.distributed.

    program ──scene names──▶ scheduler ──▶ workers: one teacher each ──shards, receipts──▶ cache
            ◀─frame counts, tiny outcomes─────────┘

What a worker finished is in the cache, so nothing else has to survive it: a scene whose worker dies is begun again on
another, and a worker first looks whether the scene has a receipt.
"""
# mypy: allow-untyped-calls

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from uuid import uuid4

from distributed import Client, Future
from distributed.scheduler import KilledWorker

from cache.layout import CacheLayout
from cache.scene_lock import sweep
from pipeline.console import console
from pipeline.teacher_stage.dask_cluster import (
    SchedulerError,
    address_of,
    build_here,
    local_client,
    plan_workers,
    remote_client,
    tell_about,
    threads_of_workers,
)
from pipeline.teacher_stage.engine import EngineChoice, StageEvents
from pipeline.teacher_stage.job import StageChoice
from pipeline.teacher_stage.worker import Outcome, TeacherOnWorker, cache_on_worker

_LOOK_EVERY_S = 1.0


def cache_on_dask(
    choice: StageChoice, engine: EngineChoice, names: Sequence[str], events: StageEvents
) -> dict[str, str]:
    """Cache scenes on the workers of a dask cluster; one that fails, or keeps killing workers, fails alone.

    Args:
        choice: sent to each worker, which opens its own teacher, data and cache from it.
        engine: the cluster: made on this machine, or its scheduler's address.
        names: the scenes.
        events: told from this thread.

    Returns:
        Reason by name of each scene that failed.

    Raises:
        SchedulerError: there is no such scheduler, it was lost, or its workers run other versions.
        DiskError: the disk refuses; scenes committed before stay.
        UserError: a worker cannot open the teacher, the data or the cache.
    """
    try:
        with _stage_on_workers(choice, engine) as stage:
            return _Run(stage, events).cache(names)
    finally:
        sweep(CacheLayout(choice.cache_path).partial)  # what killed workers left


@dataclass(frozen=True)
class _Stage:
    """Workers that know what to do with a scene's name: the plugin of this name is on each of them."""

    client: Client
    plugin: str


@contextmanager
def _stage_on_workers(choice: StageChoice, engine: EngineChoice) -> Iterator[_Stage]:
    plan = plan_workers(engine, choice.device, choice.options.threads)
    with local_client(plan) if engine.scheduler is None else remote_client(engine.scheduler) as client:
        threads = plan.threads
        if engine.scheduler is not None and choice.options.threads is None:
            threads = threads_of_workers(client)
        tell_about(client)
        stage = _Stage(client, f"teacher-stage-{uuid4().hex[:8]}")
        settled = replace(choice, options=choice.options.model_copy(update={"threads": threads}))
        try:
            client.register_plugin(TeacherOnWorker(settled, build_here(), stage.plugin), stage.plugin)
        except (ImportError, AttributeError) as error:
            raise SchedulerError(
                f"The workers of {address_of(client)} have another program or none: {error}. Start scheduler and "
                "workers from the same environment and checkout as this program (docs/clusters.md)."
            ) from error
        try:
            yield stage
        finally:
            if engine.scheduler is not None:  # the cluster goes on; its workers need not hold a teacher
                client.unregister_worker_plugin(stage.plugin)


class _Run:
    """Hands out scenes and collects what became of them. Everything arrives in one inbox, read by one thread."""

    def __init__(self, stage: _Stage, events: StageEvents) -> None:
        self._client, self._plugin, self._events = stage.client, stage.plugin, events
        self._inbox: SimpleQueue[tuple[str, int | None]] = SimpleQueue()
        self._told: dict[str, int] = {}
        self._failures: dict[str, str] = {}
        self._client.subscribe_topic(self._plugin, self._frame_came)

    def cache(self, names: Sequence[str]) -> dict[str, str]:
        """All scenes; then each that lost its workers once more, alone, because it may have died of another's fault."""
        suspects = self._round(names)
        for name in suspects:
            if self._round([name]):
                self._fail(
                    name,
                    "it was being computed whenever a worker died, at last with no other scene beside it: quarantined. "
                    f"Look at the memory of its machine; run it alone with --engine serial --scenes {name}",
                )
        return self._failures

    def _round(self, names: Sequence[str]) -> list[str]:
        """Names of the scenes whose workers died, as often as the scheduler allows."""
        first = names[0] if names and not self._told else None
        waiting = {name: self._submit(name, measure=name == first) for name in names}
        killed = []
        try:
            while waiting:
                try:
                    name, step = self._inbox.get(timeout=_LOOK_EVERY_S)
                except Empty:
                    self._refuse_lost_scheduler()
                    continue
                if step is not None:
                    if step == 0 and name in self._told:
                        console.print(f"{name} is begun again: its worker was lost")
                    self._tell_frames(name, step + 1)
                elif name in waiting:
                    outcome = _outcome_of(waiting.pop(name))
                    if outcome is None:
                        killed.append(name)
                    else:
                        self._settle(name, outcome)
        finally:
            if waiting:
                self._client.cancel(list(waiting.values()))
        return killed

    def _submit(self, name: str, measure: bool) -> Future[Outcome]:
        future = self._client.submit(
            cache_on_worker, self._plugin, name, measure, key=f"{name}-{uuid4().hex[:8]}", pure=False
        )
        future.add_done_callback(lambda _: self._inbox.put((name, None)))
        return future

    def _frame_came(self, event: tuple[float, tuple[str, int]]) -> None:
        name, step = event[1]
        self._inbox.put((name, step))

    def _tell_frames(self, name: str, done: int) -> None:
        """A scene that is begun again counts no frame twice."""
        for _ in range(self._told.get(name, 0), done):
            self._events.frame_done(name)
        self._told[name] = max(done, self._told.get(name, 0))

    def _settle(self, name: str, outcome: Outcome) -> None:
        if outcome.error is not None:
            if outcome.stops:
                raise outcome.error
            self._fail(name, str(outcome.error))
            return
        self._tell_frames(name, outcome.frames)
        if outcome.fidelity is not None:
            self._events.fidelity_measured(outcome.fidelity)

    def _fail(self, name: str, reason: str) -> None:
        self._failures[name] = reason
        self._events.scene_failed(name, reason)

    def _refuse_lost_scheduler(self) -> None:
        if self._client.status not in ("running", "connecting"):
            raise _lost()


def _outcome_of(future: Future[Outcome]) -> Outcome | None:
    """What became of a scene; None when its workers died. The cluster forgets it."""
    try:
        if future.status == "cancelled":
            raise _lost()
        error = future.exception()
        if isinstance(error, KilledWorker):
            return None
        outcome: Outcome = future.result()  # raises what is no one's mistake but ours
        return outcome
    finally:
        future.release()


def _lost() -> SchedulerError:
    return SchedulerError(
        "The dask scheduler was lost. Finished scenes are in the cache; start it again and repeat the same command."
    )
