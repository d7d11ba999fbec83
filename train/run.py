"""What a training run is made of, checked before the first step."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import torch
from pyarrow import compute

from cache.reading import Cache
from detectors.bevformer import BEVFormer
from scenes.images import load_inputs
from scenes.scene_tables import SceneTables
from schemas.errors import CacheError, RecipeError
from schemas.frame_index import frame_table
from schemas.frames import CameraInputs
from train.augmentation import frame_distortions
from train.checkpoint import Identity
from train.clips import ClipPlan, ClipPosition, PlannedBatch
from train.dataset_classes import require_dataset_classes
from train.distiller_catalogue import DistillerSet, build_distillers, needs_cache
from train.distillers.base import CACHED_DIMS, DistillationSetting
from train.distributed import ALONE, Processes
from train.inheritance import Inheritance, inherit
from train.initialisation import identity_of
from train.options import TrainOptions
from train.periodic_evaluation import Evaluate
from train.stream import OpenTargets, TargetSource, TargetWindow, TeacherStream


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """A detector, the frames it trains on, and what it learns from.

    Attributes:
        detector: changed in place, on ``device``; in the end it has the weights that are the run's result.
        tables: where images and annotations come from.
        scene_names: scenes to train on.
        cache: the teacher's cache, or None to train from annotations alone; not read by the distiller ``none``.
        options: the run's settings.
        out: the run's folder. If it holds a checkpoint, the run goes on from there.
        device: where to compute.
        allow_untrained_teacher: accept a cache made with random weights.
        recipe_yaml: what is written to ``recipe.yaml``, for the run to be repeated by.
        open_targets: where targets come from if not from the cache's files, for instance a teacher at work; the cache
            is then still what says which features there are, and of which frames.
        processes: who trains together, this process among them; ``device`` is its own.
        announce: told in words what the detector starts from, before the first step.
        evaluate: scores the detector every ``options.evaluate_every`` steps, on frames it does not train on.
    """

    detector: BEVFormer
    tables: SceneTables
    scene_names: tuple[str, ...]
    cache: Cache | None
    options: TrainOptions
    out: Path
    device: torch.device
    allow_untrained_teacher: bool = False
    recipe_yaml: str | None = None
    open_targets: OpenTargets | None = None
    evaluate: Evaluate | None = None
    announce: Callable[[str], object] | None = None
    processes: Processes = ALONE

    @property
    def reads_cache(self) -> bool:
        """Whether any distiller needs the cache."""
        return needs_cache(self.options.distillation.names)

    def load_frame(self, sample_token: str, occasion: str) -> CameraInputs:
        """Decode one frame for the detector, augmented as drawn for this occasion."""
        preprocessing, photometric = self.detector.config.preprocessing, self.options.augmentation.photometric
        drawn = (
            None if photometric is None else frame_distortions(photometric, self.options.seed, occasion, sample_token)
        )
        return load_inputs(self.tables.frame(sample_token), self.tables.data_root, preprocessing, drawn)

    def targets(self, window: TargetWindow) -> AbstractContextManager[TargetSource] | None:
        """The source of the teacher's targets; None for a run that learns from annotations alone.

        Raises:
            CacheError: the cache lacks a feature.
        """
        if not self.reads_cache or self.cache is None:
            return None
        if self.open_targets is not None:
            return self.open_targets(window)
        return TeacherStream(self.cache, window, self.options.stream, self.device)

    def identity(self) -> Identity:
        """What a checkpoint of this run belongs to."""
        scenes = hashlib.sha256("\n".join(sorted(self.scene_names)).encode()).hexdigest()
        return {
            "detector": self.detector.config.model_dump(mode="json"),
            "options": self.options.what_changes_numbers(),
            "init": identity_of(self.options.init),
            "data": {
                "version": self.tables.version,
                "tables_sha256": self.tables.tables_sha256,
                "scenes": f"{len(self.scene_names)} scenes, sha256 {scenes[:16]}",
            },
            "cache": self._learns_from(),
            "processes": self.processes.count,
        }

    def _learns_from(self) -> str:
        if not self.reads_cache or self.cache is None:
            return "none"
        elsewhere = "" if self.open_targets is None else ", targets from elsewhere"
        return f"{self.cache.manifest.fingerprint}{elsewhere}"


def check_run(run: TrainingRun) -> None:
    """Refuse what cannot work whatever the distillers, before anything is computed or written.

    Raises:
        CacheError: the cache was made by an untrained teacher.
        RecipeError: other classes than the data's, a precision that the device does not have, scores without anything
            to score on, a learning rate by epochs for streams, or more past frames than clips are long.
    """
    if run.options.precision == "float16" and run.device.type != "cuda":
        raise RecipeError(
            f"precision float16 needs --device cuda, got {run.device.type}. Use bfloat16 or float32, "
            "e.g. --set student.training.precision=bfloat16"
        )
    if run.options.evaluate_every and run.evaluate is None:
        raise RecipeError(
            f"training.evaluate_every={run.options.evaluate_every} asks for scores, and this run has no labelled "
            "frames to score on. Give it some, or --set student.training.evaluate_every=0"
        )
    if run.options.optimizer.cosine == "per-epoch" and run.options.clips.mode == "stream":
        raise RecipeError(
            "optimizer.cosine=per-epoch holds the learning rate for an epoch, and streams (clips.mode=stream) have "
            "epochs of changing length. Expected per-step with them: --set student.training.optimizer.cosine=per-step"
        )
    require_dataset_classes(run.detector.config.class_names)
    _check_trajectory(run.options)
    if not run.reads_cache or run.cache is None:
        return
    teacher = run.cache.manifest.teacher
    if teacher.untrained and not run.allow_untrained_teacher:
        raise CacheError(
            f"the cache {run.cache.path} was made by an untrained teacher ({teacher.name} with random weights), from "
            "which nothing can be learnt. Make one with a trained teacher: make cache-teacher CHECKPOINT=<weights> "
            'CACHE=<another folder>; or, for a dry run, give ARGS="--allow-untrained-teacher"'
        )


def _check_trajectory(options: TrainOptions) -> None:
    asked, given = options.distillation.fd3d_heatmap.trajectory_frames, options.clips.history_frames
    if "fd3d-heatmap" in options.distillation.names and asked > given:
        raise RecipeError(
            f"fd3d-heatmap shall look {asked} frames back (trajectory_frames), but clips have {given} before the "
            f"supervised one. Lengthen them with --set student.training.clips.length={asked + 1}, or ask for less: "
            f"--set student.training.distillation.fd3d_heatmap.trajectory_frames={given}"
        )


def distillers_of(run: TrainingRun) -> DistillerSet:
    """The run's distillers, sized for its student and its cache.

    Raises:
        CacheError: the cache was made from other tables, for other classes or another extent, or lacks a feature that
            is needed.
        RecipeError: a distiller without a cache, or one that cannot work with it.
    """
    if not run.reads_cache or run.cache is None:
        return build_distillers(run.options.distillation, None)
    config = run.detector.config
    setting = DistillationSetting(
        student_grid=config.grid,
        student_channels=config.embed_dims,
        teacher=run.cache.manifest,
        student_queries=config.decoder.queries,
        student_temporal=(config.encoder.heads, config.encoder.temporal_points),
        student_heatmap=config.head.heatmap_queries,
        shares_decoder="decoder" in run.options.distillation.inherit,
        shares_queries="object_queries" in run.options.distillation.inherit and not config.head.heatmap_queries,
    )
    distillers = build_distillers(run.options.distillation, setting)
    run.cache.compare_with(
        tables_sha256=run.tables.tables_sha256,
        class_names=config.class_names,
        extent_m=config.grid.extent_m,
        required={name: CACHED_DIMS[name] for name in distillers.requires},
    )
    return distillers


def inheritance_of(run: TrainingRun) -> Inheritance | None:
    """Give the student what the run lets it inherit; None for nothing. For the start of a run, not its resumption.

    Raises:
        CacheError: the cache holds no parameters.
        RecipeError: they do not fit the student.
    """
    parts = run.options.distillation.inherit
    return inherit(run.detector, run.cache, parts) if parts and run.cache is not None else None


def clip_plan(run: TrainingRun) -> ClipPlan:
    """The run's sequence of clips in this process, from the cache's frame index, or from the tables without a cache.

    Raises:
        CacheError: the cache lacks a scene that is trained on.
        DataError: no frame has both images and labels.
    """
    if run.reads_cache and run.cache is not None:
        run.cache.require_scenes(run.scene_names)
        frames = run.cache.frames.filter(compute.field("scene_name").isin(list(run.scene_names)))
    else:
        frames = pa.concat_tables([frame_table(run.tables.frames(name)) for name in run.scene_names])
    return ClipPlan(frames, run.options.clips, run.options.seed, run.processes.rank, run.processes.count)


def planned_batches(plan: ClipPlan, options: TrainOptions, step: int, start: ClipPosition) -> Iterator[PlannedBatch]:
    """Endless batches from a step on; those before ``history_from_step`` are single frames.

    Streams begin with a new epoch, for what is left of the one before is in another order.
    """
    position = start
    single = max(0, options.history_from_step - step) * options.accumulate
    for planned in islice(plan.batches(start, options.batch_size), single):
        yield PlannedBatch(tuple(clip.without_history() for clip in planned.clips), planned.after)
        position = planned.after
    if options.clips.mode != "stream":
        yield from plan.batches(position, options.batch_size)
        return
    if 0 < options.history_from_step >= step:
        position = ClipPosition(position.epoch + 1)
    yield from plan.streams(position, options.batch_size)
