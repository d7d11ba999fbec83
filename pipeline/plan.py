"""``make plan``: what a cache will cost, before it is made: bytes, files, disk and hours. It writes nothing.

Every number says how it is known: computed from the teacher's feature specs, counted in the tables, published,
measured here, or assumed. A checkpoint is not needed: random weights take as long.
"""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, cycle, islice
from pathlib import Path

import torch

from cache.layout import CacheLayout
from cache.reading import open_cache
from pipeline.console import console, print_table
from pipeline.device import open_device
from pipeline.paths import WORLD_FOLDER
from pipeline.teacher_stage.cost import CacheOrder
from pipeline.teacher_stage.frame_counts import FrameCounts, count_frames
from pipeline.teacher_stage.frame_timer import FrameTime, time_teacher
from pipeline.teacher_stage.job import StageChoice, chosen_features, settle_arithmetic
from pipeline.teacher_stage.made_up_frame import NUSCENES_SIZE_WH, made_up_inputs
from pipeline.teacher_stage.plan import Plan, plan_of, print_plan, print_price, require_space
from pipeline.teacher_stage.teacher import Teacher, open_teacher, teacher_of
from pipeline.teacher_stage.temporal_target import frames_ahead
from scenes.images import load_inputs
from scenes.scene_tables import SceneTables
from scenes.synthetic.options import WorldOptions
from scenes.synthetic.write import is_world
from scenes.tables import load_tables
from schemas.frames import CameraInputs
from schemas.preprocessing import Preprocessing


@dataclass(frozen=True)
class PlanOptions:
    """What a plan looks at.

    Attributes:
        timed_frames: frames to time the teacher on, after one to warm up; 0 to leave that out.
        frames: plan for so many frames, whatever the data say; None for what they say.
        workers: devices that will share the work.
    """

    timed_frames: int = 2
    frames: int | None = None
    workers: int = 1


@dataclass(frozen=True)
class _Timing:
    """The measured time of a frame, and under which conditions."""

    frame: FrameTime
    image_seconds: float | None
    conditions: str


def plan(choice: StageChoice, options: PlanOptions) -> None:
    """Print what the cache will cost, and whether it fits.

    Args:
        choice: teacher, data and cache; weights may be untrained.
        options: what to time, and for how many frames.

    Raises:
        CacheError: it does not fit; the options that would are named.
        RecipeError: no such device, teacher or feature; or nothing tells how many frames there are.
        DataError: the data directory is not nuScenes, or lacks a scene asked for.
    """
    if choice.options.threads is not None:
        torch.set_num_threads(choice.options.threads)
    settle_arithmetic()
    device = open_device(choice.device)
    tables = _tables(choice)
    counts = count_frames(choice.recipe, choice.data, tables, options.frames)
    teacher = open_teacher(teacher_of(choice.recipe, choice.weights), device)
    console.print(f"Teacher {teacher.identity.name}: {teacher.weights}", soft_wrap=True)
    planned = _planned(choice, teacher, counts)
    timing = None
    if options.timed_frames > 0:
        print_price(planned)
        frames = f"{options.timed_frames} frame{'s' if options.timed_frames > 1 else ''}"
        console.print(f"Timing {frames}, after one to warm up (--time-frames 0 leaves that out) ...", soft_wrap=True)
        timing = _time(choice, planned, teacher, tables, options.timed_frames)
        if tables is not None and choice.weights.checkpoint is not None and planned.order.tier != "float16":
            planned = replace(planned, archive_share=timing.frame.archive_share)
    print_plan(planned)
    if timing is not None:
        _print_time(planned, timing, choice.options.decode_threads, options.workers)
    require_space(planned)
    console.print("It fits.")


def _tables(choice: StageChoice) -> SceneTables | None:
    """The data, read afresh: the index that other programs keep is not written here. None where there are none."""
    version, world = choice.data.version or choice.recipe.version, choice.recipe.world
    if choice.data.data is not None:
        return load_tables(choice.data.data, version)
    if world is not None and is_world(WORLD_FOLDER, world):
        return load_tables(WORLD_FOLDER, version)
    return None


def _planned(choice: StageChoice, teacher: Teacher, counts: FrameCounts) -> Plan:
    order = CacheOrder(
        specs=chosen_features(teacher.feature_specs(), choice.recipe.cache.features),
        tier=choice.recipe.cache.tier,
        grid=teacher.network.grid,
        scene_lengths=(),
        step_axis=counts.step_axis,
        parameter_bytes=sum(values.nbytes for values in teacher.inheritable().values()),
    )
    cached = _cached(choice.cache_path, order)
    there = [length for name, length in counts.lengths.items() if name in cached]
    missing = [length for name, length in counts.lengths.items() if name not in cached]
    return replace(plan_of(order.with_scenes(missing), choice.cache_path, there), counted=counts.counted)


def _cached(path: Path, order: CacheOrder) -> frozenset[str]:
    """Scenes that the cache holds already, if these features could be added to it. Weights are not compared."""
    if not CacheLayout(path).group_document.exists():
        return frozenset()
    cache = open_cache(path)
    if (cache.manifest.features, cache.manifest.tier, cache.manifest.grid) == (order.specs, order.tier, order.grid):
        return frozenset(cache.scene_names)
    console.print(
        f"The cache {path} holds other features, or in another form: cache-teacher would refuse to add to it. "
        "This plan is for a cache of its own: name one with CACHE=...",
        soft_wrap=True,
    )
    return frozenset()


def _time(choice: StageChoice, planned: Plan, teacher: Teacher, tables: SceneTables | None, frames: int) -> _Timing:
    """Time the teacher on the data's own frames, or on made-up ones where there are none."""
    preprocessing = teacher.network.preprocessing
    device = open_device(choice.device)
    reading: list[float] = []
    if tables is None:
        inputs = _made_up_inputs(preprocessing, choice.recipe.world)
        shown = "black images, as there are no data"
    else:
        scene = choice.data.scenes[0] if choice.data.scenes else tables.all_scene_names[0]
        inputs = _real_inputs(tables, scene, preprocessing, reading)
        shown = f"frames of {scene}"
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    weights = "random weights" if choice.weights.untrained else "its weights"
    order = planned.order
    timed_inputs = islice(inputs, frames_ahead(order.specs) + frames + 1)
    timed = time_teacher(teacher, order.specs, order.tier, timed_inputs, device)
    conditions = f"measured: {shown}, {weights}, {where}, {teacher.precision}"
    return _Timing(timed, statistics.median(reading) if reading else None, conditions)


def _real_inputs(
    tables: SceneTables, scene: str, preprocessing: Preprocessing, seconds: list[float]
) -> Iterator[CameraInputs]:
    """Frames of a scene, over and over; the seconds that each took to decode are added to ``seconds``."""
    for frame in cycle(tables.frames(scene)):
        begun = time.perf_counter()
        inputs = load_inputs(frame, tables.data_root, preprocessing)
        seconds.append(time.perf_counter() - begun)
        yield inputs


def _made_up_inputs(preprocessing: Preprocessing, world: WorldOptions | None) -> Iterator[CameraInputs]:
    """Frames with images of nuScenes' size, or of the world's."""
    size_wh = NUSCENES_SIZE_WH if world is None else (world.image_width, world.image_height)
    return (made_up_inputs(preprocessing, size_wh, step) for step in count())


def _print_time(planned: Plan, timing: _Timing, decode_threads: int, workers: int) -> None:
    frames, each = planned.order.frames, timing.frame.seconds
    rows = [("teacher, a frame", seconds_text(each), f"{timing.conditions}; median of {timing.frame.frames}")]
    if timing.image_seconds is not None:
        share = timing.image_seconds / decode_threads
        limits = "more than the teacher" if share > each else "hidden behind the teacher"
        how = f"measured; {decode_threads} threads decode a frame in {seconds_text(share)} each: {limits}"
        rows.append(("images, a frame", seconds_text(timing.image_seconds), how))
        each = max(each, share)
    rows.append((f"{frames:,} frames", hours_text(frames * each), "estimated: frames × seconds, one device"))
    if workers > 1:
        spread = hours_text(frames * each / workers)
        rows.append((f"on {workers} such devices", spread, "estimated: if they share nothing but the disk"))
    print_table("Time", ("", "", "known how"), rows)


def seconds_text(seconds: float) -> str:
    """A short time for people."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def hours_text(seconds: float) -> str:
    """A long time for people."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 120 * 60:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h" if seconds < 72 * 3600 else f"{seconds / 3600:.0f} h ({seconds / 86400:.1f} days)"
