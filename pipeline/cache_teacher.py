"""``make cache-teacher``: stream every scene through the teacher once, and write what students learn from.

A scene is one unit of work: it is visible in the cache when it is complete, and a restart redoes unfinished ones only.
What happens to a scene is in ``teacher_stage/scene.py``; who does it, in the engines beside it.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from cache.layout import CacheLayout
from cache.writing import CacheWriter
from pipeline.console import Tracker, console, print_table
from pipeline.fidelity_table import print_fidelity
from pipeline.recipe import as_yaml
from pipeline.teacher_stage.engine import EngineChoice
from pipeline.teacher_stage.job import CacheJob, StageChoice, StageSource, open_job, open_source
from pipeline.teacher_stage.plan import make_plan, print_price, require_space
from pipeline.teacher_stage.serial import cache_serially
from schemas.fidelity import Fidelity


def cache_teacher(choice: StageChoice, engine: EngineChoice) -> int:
    """Write the teacher's features of the chosen scenes; scenes that the cache holds already are kept.

    Args:
        choice: teacher, data and cache.
        engine: who does the work.

    Returns:
        The number of scenes that failed; each was named with its reason, and the others are complete.

    Raises:
        CacheError: the cache was made by another teacher, from other data, or in another form; or would not fit.
        DiskError: the disk refuses.
        DataError: the data directory is not nuScenes, or lacks a scene asked for.
    """
    source = open_source(choice)
    console.print(f"Teacher {source.manifest.teacher.name}: {source.teacher.weights}", soft_wrap=True)
    names = source.names if engine.part is None else engine.part.of(source.names)
    is_new = not CacheLayout(choice.cache_path).group_document.exists()
    if is_new:  # a cache that would not fit is not begun: its form could not be changed any more
        check_price(source, choice.cache_path, names)
    job = open_job(choice, source)
    job.writer.write_recipe(as_yaml(choice.recipe))
    if inheritable := source.teacher.inheritable():
        job.writer.write_parameters(inheritable)
    waiting = _announce(job, names, engine)
    if not is_new:
        check_price(source, choice.cache_path, waiting, job.writer.committed())
    with Tracker("cache-teacher", source.frames_of(waiting), "frames") as tracker:
        events = ConsoleEvents(tracker, job.writer)
        if engine.name == "dask":
            from pipeline.teacher_stage.dask_engine import cache_on_dask  # noqa: PLC0415  only this engine pays for it

            failures = cache_on_dask(choice, engine, waiting, events)
        else:
            failures = cache_serially(job, waiting, events)
    summarise(source, job.writer, names, failures)
    return len(failures)


class ConsoleEvents:
    """Shows what an engine does, and keeps the fidelity it measured beside the cache."""

    def __init__(self, tracker: Tracker, writer: CacheWriter) -> None:
        self._tracker, self._writer = tracker, writer

    def frame_done(self, scene_name: str) -> None:
        """Move the progress bar."""
        self._tracker.advance(note=scene_name)

    def scene_failed(self, scene_name: str, reason: str) -> None:
        """Say so at once; the summary repeats it."""
        console.print(f"{scene_name} failed: {reason}", style="red", soft_wrap=True)

    def fidelity_measured(self, fidelity: Fidelity) -> None:
        """Print the table, and store the first one for ``view-cache``."""
        print_fidelity(fidelity, "Cached against live")
        if not CacheLayout(self._writer.path).fidelity.exists():
            self._writer.write_fidelity(fidelity)


def check_price(source: StageSource, path: Path, names: Sequence[str], cached: Collection[str] = ()) -> None:
    """Tell what some scenes will take beside those in the cache, and refuse when the disk cannot hold them.

    Raises:
        CacheError: not enough free space; the options that would fit are named.
    """
    length = source.tables.scene_length
    plan = make_plan(source.manifest, [length(name) for name in names], path, [length(name) for name in cached])
    print_price(plan)
    require_space(plan)


def summarise(source: StageSource, writer: CacheWriter, names: Sequence[str], failures: Mapping[str, str]) -> None:
    """Print what the cache holds now, and what failed."""
    committed, manifest = writer.committed(), source.manifest
    frames = source.frames_of(sorted(committed))
    size_bytes = sum(path.stat().st_size for path in writer.path.glob("*/c.*") if path.is_file())
    others = f", and {more} more" if (more := len(committed - set(names))) else ""
    print_table(
        f"Cache {writer.path}",
        ("", ""),
        [
            ("teacher", manifest.teacher.name + (" (untrained)" if manifest.teacher.untrained else "")),
            ("scenes", f"{sum(name in committed for name in names)} of {len(names)}{others}"),
            ("frames", str(frames)),
            ("size", f"{size_bytes / 1e9:.3g} GB, {size_bytes / max(frames, 1) / 1e6:.3g} MB a frame"),
            ("features", ", ".join(spec.name for spec in manifest.features)),
            ("tier", manifest.tier),
            ("fingerprint", manifest.fingerprint[:16]),
        ],
    )
    for name, reason in failures.items():
        console.print(f"missing: {name}: {reason}", style="red", soft_wrap=True)


def _announce(job: CacheJob, names: Sequence[str], engine: EngineChoice) -> list[str]:
    """Say what is about to happen; returns the scenes that are not in the cache yet."""
    committed = job.writer.committed()
    waiting = [name for name in names if name not in committed]
    there = f" ({len(names) - len(waiting)} are there already)" if len(waiting) < len(names) else ""
    share = "" if engine.part is None else f", part {engine.part.index}/{engine.part.count}"
    console.print(
        f"Caching {len(waiting)} of {len(names)} scenes of {job.manifest.dataset.split}{share} "
        f"in {job.writer.path}{there}",
        style="bold",
        soft_wrap=True,
    )
    return waiting
