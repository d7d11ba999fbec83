"""Students that differ in nothing but where their teacher's numbers come from: what is run, and what it gave.

Live: the teacher's float32 as it left the network. int8 and float16: the cache in that tier. All from one stream of one
teacher over the same scenes.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from benchmarks.live_targets import LiveTargets, keep_live, live_features, open_live
from benchmarks.small_stage import fill_cache, stage_source
from cache.reading import Cache
from pipeline.gains.record import OfficialScores, official
from pipeline.gains.run_row import RowJob, score_on, training_run
from pipeline.paths import INDEX_FOLDER
from pipeline.recipe import Recipe
from pipeline.recipes import with_cache
from pipeline.teacher_stage.quantise import quantise
from pipeline.teacher_stage.teacher import WeightsSource
from pipeline.training import train_with_progress
from scenes.scene_tables import SceneTables
from scenes.tables import load_tables
from scenes.whole_file import whole_file
from schemas.features import Tier
from train.stream import TargetWindow

Source = Literal["live", "int8", "float16"]
SOURCES: tuple[Source, ...] = ("live", "int8", "float16")
CACHED: tuple[Tier, ...] = ("int8", "float16")
JOB_FILE = "job.json"
MEASURED_FILE = "measured.json"
CPU = torch.device("cpu")


class ExactnessJob(BaseModel):
    """One student.

    Attributes:
        row: what to train on which cache; for a live student that cache says what there is, and gives no number.
        live: folder of live features; None for a student that reads the cache.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: RowJob
    live: Path | None


class ExactnessRecord(OfficialScores):
    """A student that was trained and scored.

    Attributes:
        study: short hash of all that runs which may be compared share.
        source: of its targets.
        seed: of its weights and of the order of its clips.
        distillers, steps, split: in words.
        teacher: how the hash of the teacher's weights begins.
        machine: processor, cores and system.
        wall_s: seconds of its process.
        date: when it ended, UTC.
    """

    study: str
    source: Source
    seed: int
    distillers: str
    steps: int
    split: str
    teacher: str
    machine: str
    wall_s: float
    date: str


COLUMNS = (
    *(name for name in ExactnessRecord.model_fields if name not in OfficialScores.model_fields),
    *OfficialScores.model_fields,
)


def read_records(path: Path) -> list[ExactnessRecord]:
    """Everything that was run so far."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [ExactnessRecord.model_validate(line) for line in csv.DictReader(file)]


def add_record(path: Path, record: ExactnessRecord) -> None:
    """Add a run to the file, which is written whole and sorted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    records = sorted([*read_records(path), record], key=lambda one: (one.study, one.seed, SOURCES.index(one.source)))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for one in records:
        values = one.model_dump()
        writer.writerow({name: round(v, 6) if isinstance(v, float) else v for name, v in values.items()})
    with whole_file(path) as file:
        file.write(text.getvalue().encode())


def make_caches(recipe: Recipe, tables: SceneTables, weights: WeightsSource, folder: Path) -> dict[Tier, Cache]:
    """The cache in both tiers, of all training scenes; what is there is kept."""
    return {
        tier: fill_cache(stage_source(with_cache(recipe, (), tier, None), tables, weights, CPU), folder / tier)
        for tier in CACHED
    }


def make_live(recipe: Recipe, tables: SceneTables, weights: WeightsSource, folder: Path, names: Sequence[str]) -> Path:
    """Live features of all training scenes; what is there is kept."""
    source, live = stage_source(recipe, tables, weights, CPU), folder / "live"
    for scene in source.names:
        if not all((live / scene / f"{name}.npy").exists() for name in names):
            keep_live(live, scene, live_features(source, scene), names)
    return live


def frames_apart(live: Path, cache: Cache, names: Sequence[str]) -> list[str]:
    """Frames whose live features, rounded as the teacher stage rounds, are not the cache's to the last bit."""
    specs, tier = [cache.manifest.feature(name) for name in names], cache.manifest.tier
    apart = []
    for scene in cache.scene_names:
        floats = {name: open_live(live, scene, name) for name in names}
        for step in range(len(floats[names[0]])):
            rounded = quantise(specs, {n: torch.tensor(np.array(values[step])) for n, values in floats.items()}, tier)
            if any(not np.array_equal(v, cache.shard(scene, n).read(step)) for n, v in rounded.on_host().items()):
                apart.append(f"{scene}, step {step}")
    return apart


def train_and_score(folder: Path) -> OfficialScores:
    """Do the job of a folder, going on from its checkpoint if there is one; the scores are kept in the folder.

    Raises:
        UserError: as training and evaluation.
        KeyboardInterrupt: the run was asked to stop; its state is saved.
    """
    measured = folder / MEASURED_FILE
    if measured.exists():
        return OfficialScores.model_validate_json(measured.read_text())
    job = ExactnessJob.model_validate_json((folder / JOB_FILE).read_text())
    torch.set_num_threads(job.row.threads)
    tables = load_tables(job.row.data, job.row.version, INDEX_FOLDER)
    run = training_run(job.row, tables, folder)
    live, cache = job.live, run.cache
    if live is not None:
        assert cache is not None

        def open_targets(window: TargetWindow) -> LiveTargets:
            return LiveTargets(live, cache, window, CPU)

        run = replace(run, open_targets=open_targets)
    train_with_progress(job.row.title, job.row.recipe, run, None)
    scores = official(score_on(run.detector, tables, job.row.split, run.options.precision, folder / "evaluation"))
    with whole_file(measured) as file:
        file.write(scores.model_dump_json().encode())
    return scores
