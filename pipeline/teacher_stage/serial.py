"""The engine of one process: scene after scene; while one is committed, the next is already being computed."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

from pipeline.teacher_stage.engine import StageEvents
from pipeline.teacher_stage.fidelity import FIDELITY_FRAMES, FidelityMeter
from pipeline.teacher_stage.job import CacheJob
from pipeline.teacher_stage.live_frames import LiveFrame
from pipeline.teacher_stage.scene import cache_scene
from pipeline.teacher_stage.write_queue import WriteQueue
from schemas.errors import DiskError, TeacherError, UserError


def cache_serially(job: CacheJob, names: Sequence[str], events: StageEvents) -> dict[str, str]:
    """Cache scenes one after the other; one that cannot be read fails alone.

    Returns:
        Reason by name of each scene that failed.

    Raises:
        DiskError: the disk refuses; scenes committed before stay.
        TeacherError: the teacher itself is at fault, so that every other scene would fail as well.
    """
    failures = _Failures(events)
    watch = _FirstFrames(job, events)
    before: tuple[str, Future[bool]] | None = None
    with WriteQueue(job.manifest.features, job.manifest.tier, job.options.queue_frames) as queue:
        for name in names:
            commit: Future[bool] | None = None
            with failures.of(name):
                commit = cache_scene(job, name, queue, watch.on_frame)
            if before is not None:
                failures.settle(*before)
            before = None if commit is None else (name, commit)
        if before is not None:
            failures.settle(*before)
    watch.report()
    return failures.reasons


class _Failures:
    """Scenes that cannot be cached, with the reason; what would fail every scene passes through."""

    def __init__(self, events: StageEvents) -> None:
        self.reasons: dict[str, str] = {}
        self._events = events

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        try:
            yield
        except (DiskError, TeacherError):
            raise
        except UserError as error:
            self.reasons[name] = str(error)
            self._events.scene_failed(name, str(error))

    def settle(self, name: str, commit: Future[bool]) -> None:
        """Wait for a scene's commit."""
        with self.of(name):
            commit.result()


class _FirstFrames:
    """Counts every frame, and measures the fidelity of the first few."""

    def __init__(self, job: CacheJob, events: StageEvents) -> None:
        self._events = events
        self._meter: FidelityMeter | None = FidelityMeter(job.teacher, job.manifest, FIDELITY_FRAMES)

    def on_frame(self, live: LiveFrame) -> None:
        if self._meter is not None:
            self._meter.observe(live)
            if self._meter.complete:
                self.report()
        self._events.frame_done(live.frame.scene_name)

    def report(self) -> None:
        """Tell the fidelity, once; also when there were fewer frames."""
        if self._meter is not None and self._meter.frames > 0:
            self._events.fidelity_measured(self._meter.result())
        self._meter = None
