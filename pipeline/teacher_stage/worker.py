"""A dask worker that holds a teacher: what runs in it, and the little that it sends back."""
# mypy: allow-untyped-calls

import threading
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass

from distributed import Worker, WorkerPlugin, get_worker, secede

from pipeline.teacher_stage.dask_cluster import Build, build_here, refuse_other_build
from pipeline.teacher_stage.fidelity import FIDELITY_FRAMES, FidelityMeter
from pipeline.teacher_stage.job import CacheJob, StageChoice, open_job, open_source
from pipeline.teacher_stage.live_frames import LiveFrame
from pipeline.teacher_stage.scene import cache_scene
from pipeline.teacher_stage.write_queue import WriteQueue
from schemas.errors import DiskError, TeacherError, UserError
from schemas.fidelity import Fidelity


@dataclass(frozen=True)
class Outcome:
    """What became of one scene.

    Attributes:
        frames: of the scene; 0 when it is not in the cache.
        error: why it is not.
        stops: no other scene would fare better.
        fidelity: of its first frames, when that was asked for.
    """

    frames: int = 0
    error: UserError | None = None
    stops: bool = False
    fidelity: Fidelity | None = None


class AbandonedError(Exception):
    """The run is over; nobody waits for this scene any more."""


class TeacherOnWorker(WorkerPlugin):
    """One teacher and one open cache for each worker process, opened by its first scene.

    Frames are told under ``topic`` as they are computed: ``[scene name, step]``.

    Args:
        choice: what to open.
        build: the versions that the worker must have.
        topic: of the events.
    """

    def __init__(self, choice: StageChoice, build: Build, topic: str) -> None:
        self._choice, self._build, self._topic = choice, build, topic

    def setup(self, worker: Worker) -> None:
        """Called in the worker, in its event loop: nothing slow here."""
        self._worker = worker
        self._teaching = threading.Lock()  # a worker may have several threads, and has one teacher
        self._resources = ExitStack()
        self._opened: tuple[CacheJob, WriteQueue] | None = None
        self._over = False

    def teardown(self, worker: Worker) -> None:  # noqa: ARG002
        """Let go of the teacher, and of a scene that is being computed."""
        self._over = True
        if self._teaching.acquire(blocking=False):
            self._close()
            self._teaching.release()

    def cache(self, name: str, measure: bool) -> Outcome:
        """Cache one scene. Its last frames are written while the worker computes the next scene."""
        try:
            with self._teaching:
                try:
                    job, queue = self._open()
                except UserError as error:
                    return Outcome(error=error, stops=True)
                meter = FidelityMeter(job.teacher, job.manifest, FIDELITY_FRAMES) if measure else None
                commit = self._compute(job, queue, name, meter)
            if commit is not None:
                commit.result()
        except UserError as error:
            return Outcome(error=error, stops=isinstance(error, DiskError | TeacherError))
        fidelity = meter.result() if meter is not None and meter.frames > 0 else None
        return Outcome(job.tables.scene_length(name), fidelity=fidelity)

    def _compute(self, job: CacheJob, queue: WriteQueue, name: str, meter: FidelityMeter | None) -> Future[bool] | None:
        """The scene's commit, queued; None when the cache holds the scene: who finished it may have died thereafter."""

        def on_frame(live: LiveFrame) -> None:
            if self._over:
                raise AbandonedError(name)
            self._worker.log_event(self._topic, [name, live.frame.step])
            if meter is not None and not meter.complete:
                meter.observe(live)

        try:
            if name in job.writer.committed():
                return None
            commit = cache_scene(job, name, queue, on_frame)
            secede()  # the worker may begin its next scene
            return commit
        finally:
            if self._over:
                self._close()

    def _open(self) -> tuple[CacheJob, WriteQueue]:
        if self._over:
            raise AbandonedError
        if self._opened is None:
            refuse_other_build(self._build, build_here(), self._worker.address)
            job = open_job(self._choice, open_source(self._choice))
            queue = WriteQueue(job.manifest.features, job.manifest.tier, job.options.queue_frames)
            self._opened = job, self._resources.enter_context(queue)
        return self._opened

    def _close(self) -> None:
        self._opened = None
        self._resources.close()


def cache_on_worker(plugin: str, name: str, measure: bool) -> Outcome:
    """The task: cache one scene on whichever worker it came to."""
    teacher = get_worker().plugins[plugin]
    assert isinstance(teacher, TeacherOnWorker), "registered under this name by the engine"
    return teacher.cache(name, measure)
