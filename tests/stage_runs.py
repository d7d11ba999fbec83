"""Runs of the teacher stage on the tiny world: a very small untrained teacher, one thread, any engine."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cache.reading import open_cache
from pipeline.dataset import DataChoice
from pipeline.recipes import load_recipe
from pipeline.teacher_stage.engine import EngineChoice
from pipeline.teacher_stage.job import StageChoice, StageOptions, open_job, open_source
from pipeline.teacher_stage.serial import cache_serially
from pipeline.teacher_stage.teacher import WeightsSource
from schemas.fidelity import Fidelity

SMALL_TEACHER = (
    "teacher.detector.encoder.layers=1",
    "teacher.detector.decoder.layers=1",
    "teacher.training.precision=float32",
)
ONE_THREAD = StageOptions(decode_threads=1, threads=1)


def choice_of(data: Path, cache: Path, scenes: Sequence[str] = (), file: str | None = None) -> StageChoice:
    """The tiny world's training scenes and a teacher of one layer; or the teacher of a file."""
    of_a_file = [] if file is None else [f"teacher.file={file}", "cache.features=[]"]
    recipe = load_recipe("demo", [*SMALL_TEACHER, *of_a_file])
    weights = WeightsSource(None, untrained=file is None)
    return StageChoice(recipe, weights, DataChoice(data, scenes=tuple(scenes)), cache, options=ONE_THREAD)


class Heard:
    """Events of a stage, counted."""

    def __init__(self) -> None:
        self.frames: Counter[str] = Counter()
        self.failed: dict[str, str] = {}
        self.fidelity: list[Fidelity] = []

    def frame_done(self, scene_name: str) -> None:
        self.frames[scene_name] += 1

    def scene_failed(self, scene_name: str, reason: str) -> None:
        self.failed[scene_name] = reason

    def fidelity_measured(self, fidelity: Fidelity) -> None:
        self.fidelity.append(fidelity)


def cached_serially(choice: StageChoice) -> Heard:
    """Run the serial engine on all scenes of the choice."""
    heard, source = Heard(), open_source(choice)
    assert cache_serially(open_job(choice, source), source.names, heard) == {}
    return heard


def cached_on_dask(choice: StageChoice, names: Sequence[str], workers: int = 2) -> Heard:
    """Run the dask engine on a cluster of this machine."""
    from pipeline.teacher_stage.dask_engine import cache_on_dask  # noqa: PLC0415  (a heavy import for serial tests)

    heard = Heard()
    assert cache_on_dask(choice, EngineChoice("dask", workers=workers), names, heard) == {}
    return heard


def files_of(cache: Path) -> dict[str, bytes]:
    """Every file of a cache but what writers keep for themselves, by its path."""
    return {
        str(path.relative_to(cache)): path.read_bytes()
        for path in sorted(cache.rglob("*"))
        if path.is_file() and ".writers" not in path.relative_to(cache).parts
    }


def scenes_in(cache: Path) -> tuple[str, ...]:
    """Names of the finished scenes."""
    return open_cache(cache).scene_names
