"""``make verify-cache ARGS="--live N"``: run the teacher again on N cached frames, and compare.

Two questions are answered. How far is the cache from the live teacher (the table that ``cache-teacher`` printed)? And
does this machine, with these weights and images, compute what the cache holds? A cache that was made by another teacher
than its manifest says shows here, and nowhere else.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from cache.manifest_check import refuse_other_manifest
from cache.reading import Cache, open_cache
from pipeline.console import Tracker, console, print_table
from pipeline.dataset import DataChoice
from pipeline.fidelity_table import print_fidelity
from pipeline.recipe import RECIPE_FILE, read_recipe
from pipeline.shipped_weights import finished_teacher
from pipeline.teacher_stage.fidelity import FidelityMeter
from pipeline.teacher_stage.job import StageChoice, StageOptions, StageSource, open_source
from pipeline.teacher_stage.live_frames import LiveFrame, LiveScene, live_frames, told_where
from pipeline.teacher_stage.quantise import StoredFrame, refuse_unfit
from pipeline.teacher_stage.reproduction import TOLERANCES, Agreement, agreement
from pipeline.teacher_stage.teacher import WeightsSource
from pipeline.teacher_stage.temporal_target import frames_ahead
from scenes.frame_stream import stream_frames
from schemas.errors import CacheError
from schemas.fidelity import Fidelity
from schemas.frames import Frame

STEPS_PER_SCENE = 4
"""A teacher with memory needs every earlier frame of a scene: few frames of many scenes tell more than many of few."""


def stage_of_cache(
    path: Path, weights: WeightsSource, data: Path | None, device: str, options: StageOptions
) -> StageChoice:
    """The run that made a cache, from what lies beside it.

    Args:
        path: the cache folder, with its ``recipe.yaml``.
        weights: of the teacher; where none are named, those of a teacher that the recipe trains itself, or random ones
            for a cache of an untrained teacher.
        data: the nuScenes directory; None for the recipe's own world.
        device: where to run the teacher.
        options: how.

    Raises:
        CacheError: there is no cache.
        RecipeError: no recipe lies beside it.
    """
    manifest, recipe = open_cache(path).manifest, read_recipe(path / RECIPE_FILE)
    if weights.checkpoint is None and manifest.teacher.untrained:
        weights = replace(weights, untrained=True)
    if weights.checkpoint is None and not weights.untrained:
        weights = replace(weights, checkpoint=finished_teacher(recipe))
    choice = DataChoice(data, manifest.dataset.version, manifest.dataset.split)
    return StageChoice(recipe, weights, choice, path, device, options)


def verify_live(choice: StageChoice, frames: int) -> Fidelity:
    """Recompute the first frames of scenes spread over the cache, and print how the cache compares.

    Args:
        choice: the run that made the cache.
        frames: how many; fewer when the cache holds fewer.

    Raises:
        CacheError: the cache was made by another teacher, from other data or in another form; holds nothing; is
            damaged; or holds what this teacher does not compute from these frames.
        DataError: a frame cannot be read.
    """
    source = open_source(choice)
    cache = open_cache(choice.cache_path)
    refuse_other_manifest(
        choice.cache_path,
        source.manifest,
        cache.manifest,
        "Name what it was made with: RECIPE=, DATA=, CHECKPOINT= and the options of that make cache-teacher command.",
    )
    steps = steps_to_compare({n: source.tables.scene_length(n) for n in source.names if n in cache.scene_names}, frames)
    if not steps:
        raise CacheError(f"the cache {choice.cache_path} holds none of the scenes: nothing to compare with the teacher")
    comparison = _Comparison(source, cache)
    with Tracker("verify-cache --live", sum(steps.values()), "frames") as tracker:
        for name, count in steps.items():
            for live in _live_frames(source, choice.options, name, count):
                comparison.add(live)
                tracker.advance(note=name)
    return comparison.tell(f"Cached against live, the first frames of {len(steps)} scenes")


def steps_to_compare(lengths: Mapping[str, int], frames: int) -> dict[str, int]:
    """How many of the first steps of which scenes: scenes evenly spread, the same number of each, ``frames`` in all.

    Args:
        lengths: number of steps by scene name, in the order of the cache.
        frames: how many are wanted; short scenes may leave some of them out.
    """
    names = [name for name, length in lengths.items() if length > 0]
    count = min(len(names), math.ceil(frames / STEPS_PER_SCENE))
    steps: dict[str, int] = {}
    for number in range(count):
        name = names[number * len(names) // count]
        share = math.ceil((frames - sum(steps.values())) / (count - number))
        steps[name] = min(lengths[name], share)
    return {name: number for name, number in steps.items() if number > 0}


class _Comparison:
    """Frames of a cache against what the teacher computes now."""

    def __init__(self, source: StageSource, cache: Cache) -> None:
        self._source, self._cache, self._manifest = source, cache, cache.manifest
        self._meter = FidelityMeter(source.teacher, cache.manifest, frames=1)
        self._agreements = {spec.name: Agreement() for spec in cache.manifest.features}
        self._tolerance = TOLERANCES[cache.manifest.precision]
        self._first_fault: str | None = None

    def add(self, live: LiveFrame) -> None:
        """One frame more."""
        tier, fresh = self._manifest.tier, live.stored.arrays
        cached = self._stored(live.frame)
        for spec in self._manifest.features:
            found = agreement(spec, tier, cached, fresh, self._tolerance.levels)
            self._agreements[spec.name] = self._agreements[spec.name].with_frame(found)
            if self._first_fault is None and not found.is_explained(spec, tier, self._tolerance):
                self._first_fault = self._fault(live.frame, spec.name, found)
        self._meter.observe(LiveFrame(live.frame, live.features, StoredFrame(cached, live.stored.extremes)))

    def tell(self, title: str) -> Fidelity:
        """Print both tables.

        Raises:
            CacheError: the cache holds what this teacher does not compute.
        """
        fidelity = self._meter.result()
        print_fidelity(fidelity, title)
        allowed = f"{self._tolerance.levels:g} levels"
        print_table(
            "Stored against quantised now",
            ("feature", "same bytes", "largest difference", f"over {allowed}"),
            [
                (
                    name,
                    f"{found.identical / found.numbers:.4%}",
                    f"{found.largest_levels:.3g} levels",
                    f"{found.apart / found.values:.4%}",
                )
                for name, found in self._agreements.items()
            ],
        )
        if self._first_fault is not None:
            raise CacheError(self._first_fault)
        if all(found.identical == found.numbers for found in self._agreements.values()):
            console.print("This machine computes the very bytes that the cache holds.")
        return fidelity

    def _stored(self, frame: Frame) -> dict[str, Tensor]:
        """A frame as the cache holds it, verified, on the teacher's device."""
        return {
            name: torch.tensor(self._cache.shard(frame.scene_name, name).read(frame.step), device=self._source.device)
            for name in self._cache.arrays
        }

    def _fault(self, frame: Frame, name: str, found: Agreement) -> str:
        made_with = self._cache.made_with(frame.scene_name)
        facts = ", ".join(f"{key} {value}" for key, value in made_with.items()) or "not recorded"
        return (
            f"the cache {self._cache.path} does not hold what this teacher computes: scene {frame.scene_name}, "
            f"step {frame.step}, feature {name}: {found.apart} of {found.values} values are more than "
            f"{self._tolerance.levels:g} quantisation levels from the live ones, at most {found.largest_levels:.3g}. "
            "The manifest names these weights and these frames: so the images have changed since, or other code made "
            f"the scene, or a device that computes otherwise (it was made with: {facts}). If the device is not why, "
            f"make the cache anew: make cache-teacher CACHE={self._cache.path}-2"
        )


def _live_frames(source: StageSource, options: StageOptions, name: str, count: int) -> Iterator[LiveFrame]:
    """The first frames of a scene, computed and quantised as ``cache_scene`` does."""
    manifest = source.manifest
    frames = source.tables.frames(name)[: count + frames_ahead(manifest.features)]
    inputs_in_order = stream_frames(
        frames, source.tables.data_root, manifest.preprocessing, threads=options.decode_threads
    )
    scene = LiveScene(source.teacher, manifest.features, manifest.tier, source.device)
    for live in live_frames(scene, inputs_in_order):
        if live.frame.step < count:
            with told_where(live.frame):
                refuse_unfit(manifest.features, StoredFrame({}, live.stored.extremes.cpu()), manifest.tier)
            yield live
