"""A few tiny frames, a detector small enough for them, and a cache that such a detector has filled."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from made_nuscenes import make_nuscenes
from train_fakes import RGB, grid_of

from cache.reading import Cache, open_cache
from cache.writing import SceneSlot, open_for_writing
from detectors.bevformer import BEVFormer
from detectors.config import (
    BEVFormerConfig,
    DecoderConfig,
    EncoderConfig,
    FPNConfig,
    SmallBackboneConfig,
)
from scenes.scene_tables import SceneTables
from scenes.tables import load_tables
from schemas.boxes import CLASS_NAMES
from schemas.features import Tier
from schemas.frame_index import frame_table
from schemas.manifest import DatasetIdentity, Manifest, TeacherIdentity
from train.loop import train
from train.metrics_log import StepReport
from train.options import TrainOptions
from train.run import TrainingRun

SCENES = ("scene-0001", "scene-0002", "scene-0004")
FRAMES = 4
CPU = torch.device("cpu")


def tiny_tables(folder: Path) -> SceneTables:
    """Three scenes of four frames with 32×18 images of noise; written once per folder."""
    folder.mkdir(exist_ok=True)
    data_root = folder / "nuscenes"
    if not data_root.exists():
        make_nuscenes(SCENES, frames=FRAMES).write(data_root)
    return load_tables(data_root, "v1.0-trainval", folder / "index")


def tiny_config(rows: int = 6, cols: int = 5, dims: int = 16, dropout: float = 0.1) -> BEVFormerConfig:
    return BEVFormerConfig(
        embed_dims=dims,
        backbone=SmallBackboneConfig(channels=(8, 8, 8, 16), blocks=(1, 1, 1), norm="group"),
        neck=FPNConfig(in_channels=(8, 16), out_channels=dims, levels=2),
        encoder=EncoderConfig(layers=1, heads=2, spatial_points=4, ffn_channels=16, dropout=dropout),
        decoder=DecoderConfig(layers=1, heads=2, queries=12, ffn_channels=16, dropout=dropout),
        grid=grid_of(rows, cols),
        preprocessing=RGB.model_copy(update={"pad_multiple": 16}),
    )


def tiny_detector(config: BEVFormerConfig | None = None, seed: int = 0) -> BEVFormer:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return BEVFormer(config or tiny_config())


def tiny_manifest(teacher: BEVFormer, tables: SceneTables, tier: Tier, *, untrained: bool = False) -> Manifest:
    return Manifest(
        teacher=TeacherIdentity(name="tiny", architecture="{}", weights_sha256="0" * 64, untrained=untrained),
        preprocessing=teacher.config.preprocessing,
        precision="float32",
        dataset=DatasetIdentity(
            name="nuscenes", version=tables.version, split="train", tables_sha256=tables.tables_sha256
        ),
        features=teacher.feature_specs(),
        tier=tier,
        class_names=CLASS_NAMES,
        grid=teacher.config.grid,
        program_version="0",
        device="cpu",
    )


def fill_cache(
    path: Path, tables: SceneTables, tier: Tier = "int8", scenes: Sequence[str] = SCENES, *, untrained: bool = False
) -> Cache:
    """A cache of numbers in the shapes of a tiny 9×8 teacher, different in every frame."""
    teacher = tiny_detector(tiny_config(rows=9, cols=8, dims=12))
    manifest = tiny_manifest(teacher, tables, tier, untrained=untrained)
    slots = [SceneSlot(name, tables.frames(name)[0].scene_token, tables.scene_length(name)) for name in SCENES]
    writer = open_for_writing(path, manifest, slots)
    rng = np.random.default_rng(0)
    for name in scenes:
        with writer.scene(name) as scene:
            for _ in tables.frames(name):
                scene.append({spec.name: rng.random(spec.shape, dtype=np.float32) for spec in manifest.features})
            scene.commit(frame_table(tables.frames(name)))
    return open_cache(path)


def run_builder(like: TrainingRun) -> Callable[..., TrainingRun]:
    """Makes runs of fresh detectors in folders in ``like.out``; keyword arguments are fields of options or run."""

    def build(out: str = "out", **changes: Any) -> TrainingRun:
        options = {key: changes.pop(key) for key in list(changes) if key in TrainOptions.model_fields}
        fresh = {"detector": tiny_detector(), "options": like.options.model_copy(update=options), "out": like.out / out}
        return replace(like, **(fresh | changes))

    return build


def quietly(run: TrainingRun, max_steps: int | None = None) -> list[StepReport]:
    """Train, and tell every step."""
    reports: list[StepReport] = []
    train(run, reports.append, max_steps)
    return reports


def logged(run: TrainingRun) -> list[dict[str, Any]]:
    """Lines of the run's log, without what a clock has said."""
    lines = [json.loads(line) for line in (run.out / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds"], line["pace"]
    return lines
