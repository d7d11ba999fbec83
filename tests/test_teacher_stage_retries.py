"""What the dask engine does when workers die or scenes fail, played by a scheduler that has no workers."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from distributed import Client, Future
from distributed.scheduler import KilledWorker
from stage_runs import Heard

from pipeline.teacher_stage.dask_cluster import SchedulerError
from pipeline.teacher_stage.dask_engine import _Run, _Stage
from pipeline.teacher_stage.worker import Outcome
from schemas.errors import DataError, DiskError

DIED = KilledWorker("task", None, 1)
DONE = Outcome(frames=2)


class PlayedFuture(Future[Outcome]):
    def __init__(self, end: "Outcome | Exception | None") -> None:
        self._end, self.released = end, False

    def __del__(self) -> None:
        """There is no scheduler to tell."""

    def __repr__(self) -> str:
        return f"PlayedFuture({self._end!r})"

    @property
    def status(self) -> str:
        return "cancelled" if self._end is None else "finished"

    def add_done_callback(self, callback: Callable[["PlayedFuture"], None]) -> None:
        callback(self)

    def exception(self) -> Exception | None:
        return self._end if isinstance(self._end, Exception) else None

    def result(self) -> Outcome:
        if isinstance(self._end, Exception):
            raise self._end
        assert self._end is not None
        return self._end

    def release(self) -> None:
        self.released = True


class PlayedClient(Client):
    """Ends each scene as its script says: one end for each time that it is submitted."""

    status = "running"

    def __del__(self) -> None:
        """There is nothing to close."""

    def __repr__(self) -> str:
        return "PlayedClient()"

    def __init__(self, script: Mapping[str, list["Outcome | Exception | None"]]) -> None:
        self._script = {name: iter(ends) for name, ends in script.items()}
        self.submitted: list[str] = []
        self.measured: list[str] = []
        self.futures: list[PlayedFuture] = []
        self.cancelled: list[PlayedFuture] = []
        self.tell: Callable[[tuple[float, tuple[str, int]]], None] = lambda _: None

    def subscribe_topic(self, _topic: str, handler: Callable[..., None]) -> None:
        self.tell = handler

    def submit(self, _task: Callable[..., Outcome], _plugin: str, name: str, measure: bool, **_: Any) -> PlayedFuture:
        self.submitted.append(name)
        self.measured += [name] if measure else []
        self.tell((0.0, (name, 0)))
        self.futures.append(PlayedFuture(next(self._script[name])))
        return self.futures[-1]

    def cancel(self, futures: list[PlayedFuture]) -> None:
        self.cancelled += futures


def played(script: Mapping[str, list["Outcome | Exception | None"]]) -> tuple[PlayedClient, Heard, dict[str, str]]:
    client, heard = PlayedClient(script), Heard()
    return client, heard, _Run(_Stage(client, "plugin"), heard).cache(list(script))


def test_scenes_whose_workers_died_are_tried_once_more_each_alone() -> None:
    client, heard, failures = played({"a": [DIED, DIED], "b": [DIED, DONE], "c": [DONE]})
    assert client.submitted == ["a", "b", "c", "a", "b"]
    assert list(failures) == ["a"]
    assert "quarantined" in failures["a"]
    assert "--engine serial --scenes a" in failures["a"]
    assert heard.failed == failures
    assert heard.frames == {"a": 1, "b": 2, "c": 2}
    assert client.measured == ["a"]
    assert all(future.released for future in client.futures)


def test_a_scene_that_fails_fails_alone() -> None:
    _, heard, failures = played({"a": [Outcome(error=DataError("torn image"))], "b": [DONE]})
    assert failures == {"a": "torn image"}
    assert heard.frames == {"a": 1, "b": 2}


def test_a_disk_that_refuses_stops_the_run() -> None:
    client, heard = PlayedClient({"a": [Outcome(error=DiskError("full"), stops=True)], "b": [DONE]}), Heard()
    with pytest.raises(DiskError, match="full"):
        _Run(_Stage(client, "plugin"), heard).cache(["a", "b"])
    assert client.cancelled == [client.futures[1]]


def test_a_mistake_of_ours_is_not_a_scene_that_failed() -> None:
    with pytest.raises(ZeroDivisionError):
        played({"a": [ZeroDivisionError()]})


def test_a_lost_scheduler_is_told() -> None:
    with pytest.raises(SchedulerError, match=r"scheduler was lost\. Finished scenes are in the cache"):
        played({"a": [None]})


def test_nothing_to_do() -> None:
    assert played({})[2] == {}
