"""``make cache-teacher``: stream every scene through the teacher once, and write what students learn from.

    frames (decode threads) ─▶ teacher.features(frame, previous) ─▶ scene writer ─▶ receipt

A scene is one unit of work: it is visible in the cache when it is complete, and a restart redoes unfinished ones only.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cache.writing import CacheWriter, SceneSlot, open_for_writing
from detectors.inputs import batch_of
from pipeline.console import Tracker, console, print_table
from pipeline.dataset import DataChoice, chosen_scenes, chosen_split, open_data
from pipeline.recipe import Recipe, write_recipe
from pipeline.teacher import Teacher
from scenes.frame_stream import stream_frames
from scenes.scene_tables import SceneTables
from schemas.errors import CacheError, RecipeError, UserError
from schemas.features import FeatureSpec, frame_bytes
from schemas.frame_index import frame_table
from schemas.manifest import DatasetIdentity, Manifest
from train.learner import autocast


@dataclass(frozen=True)
class CacheJob:
    """Everything one run of the teacher stage needs: the teacher, its frames, and the open cache."""

    teacher: Teacher
    tables: SceneTables
    writer: CacheWriter
    manifest: Manifest
    device: torch.device


def cache_teacher(recipe: Recipe, teacher: Teacher, choice: DataChoice, cache_path: Path, device: torch.device) -> int:
    """Write the teacher's features of the chosen scenes; scenes that the cache holds already are kept.

    Args:
        recipe: says which features to keep, in which tier.
        teacher: the detector with its weights.
        choice: data directory, version, split and scenes.
        cache_path: the cache, made when it does not exist.
        device: where the teacher runs.

    Returns:
        The number of scenes that failed; each was named with its reason, and the others are complete.

    Raises:
        CacheError: the cache was made by another teacher, from other data, or in another form.
        DataError: the data directory is not nuScenes, or lacks a scene asked for.
    """
    tables = open_data(recipe, choice)
    split = chosen_split(tables, choice)
    names = chosen_scenes(tables, split, choice.scenes)
    manifest = describe(recipe, teacher, tables, split, device)
    slots = [SceneSlot(name, tables.scene_token(name), tables.scene_length(name)) for name in tables.scene_names(split)]
    writer = open_for_writing(cache_path, manifest, slots)
    write_recipe(recipe, cache_path)
    writer.write_parameters(teacher.inheritable())
    job = CacheJob(teacher, tables, writer, manifest, device)
    committed = writer.committed()
    waiting = [name for name in names if name not in committed]
    there = f" ({len(names) - len(waiting)} are there already)" if len(waiting) < len(names) else ""
    title = f"Caching {len(waiting)} of {len(names)} scenes of {split} in {cache_path}{there}"
    console.print(title, style="bold", soft_wrap=True)
    check_space(job, sum(tables.scene_length(name) for name in waiting))
    failures = run_scenes(job, waiting)
    summarise(job, names, failures)
    return len(failures)


def describe(recipe: Recipe, teacher: Teacher, tables: SceneTables, split: str, device: torch.device) -> Manifest:
    """The manifest of the cache that this recipe, teacher and data make.

    Raises:
        RecipeError: the recipe asks for a feature the teacher does not have.
    """
    config = recipe.teacher.detector
    return Manifest(
        teacher=teacher.identity,
        preprocessing=config.preprocessing,
        precision=recipe.teacher.precision,
        dataset=DatasetIdentity(
            name="nuscenes", version=tables.version, split=split, tables_sha256=tables.tables_sha256
        ),
        features=chosen_features(teacher.detector.feature_specs(), recipe.cache.features),
        tier=recipe.cache.tier,
        class_names=config.class_names,
        grid=config.grid,
        program_version=version("bev-teacher-cache"),
        device=str(device),
    )


def chosen_features(offered: Sequence[FeatureSpec], asked: Sequence[str]) -> tuple[FeatureSpec, ...]:
    """The specs of the features asked for, in the teacher's order.

    Raises:
        RecipeError: a feature the teacher does not have.
    """
    unknown = sorted(set(asked) - {spec.name for spec in offered})
    if unknown:
        raise RecipeError(
            f"The teacher has no feature {', '.join(unknown)}; it offers {', '.join(spec.name for spec in offered)}. "
            "Choose with --arrays."
        )
    return tuple(spec for spec in offered if spec.name in asked)


def check_space(job: CacheJob, frames: int) -> None:
    """Tell what the frames will take, and refuse when the disk cannot hold them.

    Raises:
        CacheError: not enough free space.
    """
    path, bytes_each = job.writer.path, frame_bytes(job.manifest.features, job.manifest.tier)
    needed_gb, free_gb = frames * bytes_each / 1e9, shutil.disk_usage(path).free / 1e9
    console.print(f"{frames} frames of {bytes_each / 1e6:.2f} MB: {needed_gb:.3g} GB of {free_gb:.3g} GB free")
    if needed_gb > free_gb:
        raise CacheError(
            f"The cache {path} needs {needed_gb:.3g} GB for {frames} more frames, and its disk has {free_gb:.3g} GB "
            "free. Choose another disk with CACHE=..., fewer features with --arrays bev, fewer scenes with --scenes, "
            "or --tier int8 if it is float16 now."
        )


def run_scenes(job: CacheJob, names: Sequence[str]) -> dict[str, str]:
    """Cache scene after scene; one that cannot be read fails alone.

    Returns:
        Reason by name of each scene that failed.
    """
    failures: dict[str, str] = {}
    with Tracker("cache-teacher", sum(job.tables.scene_length(name) for name in names), "frames") as tracker:
        for name in names:
            try:
                cache_scene(job, name, tracker)
            except UserError as error:
                failures[name] = str(error)
                console.print(f"{name} failed: {error}", style="red", soft_wrap=True)
    return failures


def cache_scene(job: CacheJob, name: str, tracker: Tracker) -> None:
    """Stream one scene through the teacher, in time order, and commit it."""
    frames = job.tables.frames(name)
    wanted = [spec.name for spec in job.manifest.features]
    inputs_in_order = stream_frames(frames, job.tables.data_root, job.manifest.preprocessing)
    previous = None
    with job.writer.scene(name) as scene:
        for inputs in inputs_in_order:
            with torch.inference_mode(), autocast(job.device, job.manifest.precision):
                features, previous = job.teacher.detector.features(batch_of([inputs]).to(job.device), previous)
                values = job.teacher.detector.cacheable(features, 0)
            scene.append(_on_host(values, wanted))
            tracker.advance(note=name)
        scene.commit(frame_table(frames))


def summarise(job: CacheJob, names: Sequence[str], failures: Mapping[str, str]) -> None:
    """Print what the cache holds now, and what failed."""
    committed = job.writer.committed()
    frames = sum(job.tables.scene_length(name) for name in committed)
    size_bytes = sum(path.stat().st_size for path in job.writer.path.glob("*/c.*") if path.is_file())
    print_table(
        f"Cache {job.writer.path}",
        ("", ""),
        [
            ("teacher", job.manifest.teacher.name + (" (untrained)" if job.manifest.teacher.untrained else "")),
            ("scenes", f"{sum(name in committed for name in names)} of {len(names)}"),
            ("frames", str(frames)),
            ("size", f"{size_bytes / 1e9:.3g} GB, {size_bytes / max(frames, 1) / 1e6:.3g} MB a frame"),
            ("features", ", ".join(spec.name for spec in job.manifest.features)),
            ("tier", job.manifest.tier),
            ("fingerprint", job.manifest.fingerprint[:16]),
        ],
    )
    for name, reason in failures.items():
        console.print(f"missing: {name}: {reason}", style="red", soft_wrap=True)


def _on_host(values: Mapping[str, torch.Tensor], wanted: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    return {name: values[name].float().cpu().numpy() for name in wanted}
