"""One run of the study: train, score, tell what it cost. A process of its own, so that its memory is its own.

``python -m pipeline.gains.run_row FOLDER`` does the job that stands in ``FOLDER/job.json`` and leaves
``FOLDER/measured.json``; the same command goes on from the checkpoint of a run that was stopped.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

import torch
import typer
from pydantic import BaseModel, ConfigDict

from cache.reading import Cache, open_cache
from detectors.bevformer import BEVFormer
from pipeline.dataset import chosen_scenes
from pipeline.failures import told_clearly
from pipeline.gains.record import CurvePoint, Measured, official
from pipeline.paths import INDEX_FOLDER
from pipeline.recipe import Recipe
from pipeline.training import seeded_detector, train_with_progress
from scenes.evaluation import evaluate
from scenes.scene_tables import SceneTables
from scenes.score import Score
from scenes.splits import training_split
from scenes.tables import load_tables
from scenes.whole_file import whole_file
from train.distiller_catalogue import needs_cache
from train.inference import InferenceOptions, detect
from train.options import Precision
from train.run import TrainingRun
from train.run_folder import RunFolder

JOB_FILE = "job.json"
MEASURED_FILE = "measured.json"
LOG_FILE = "log.txt"
CPU = torch.device("cpu")


class RowJob(BaseModel):
    """All that one run needs to know.

    Attributes:
        title: what its progress is called.
        recipe: with the row's distillers, values and seed.
        data: the nuScenes directory.
        version: of it.
        cache: the teacher's cache; not opened for ``none``.
        split: to score.
        threads: of torch.
        allow_untrained_teacher: accept a cache made with random weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    recipe: Recipe
    data: Path
    version: str
    cache: Path
    split: str
    threads: int = 1
    allow_untrained_teacher: bool = False


def training_run(job: RowJob, tables: SceneTables, out: Path) -> TrainingRun:
    """The student's training of a job, exactly as ``train-student`` does it; without the scores along the way.

    Raises:
        CacheError: no cache where one is needed.
    """
    student = job.recipe.student
    cache: Cache | None = open_cache(job.cache) if needs_cache(student.training.distillation.names) else None
    split = training_split(tables.version) if cache is None else cache.manifest.dataset.split
    return TrainingRun(
        detector=seeded_detector(student.detector, student.training.seed),
        tables=tables,
        scene_names=chosen_scenes(tables, split, ()),
        cache=cache,
        options=student.training,
        out=out,
        device=CPU,
        allow_untrained_teacher=job.allow_untrained_teacher,
    )


def do_job(folder: Path) -> Measured:
    """Train the job of a folder to its end and score it; what it gave is written to ``measured.json``.

    Raises:
        UserError: as training and evaluation.
        KeyboardInterrupt: the run was asked to stop; its state is saved.
    """
    if (folder / MEASURED_FILE).exists():  # done, but whoever had started it was gone before it could be filed
        return Measured.model_validate_json((folder / MEASURED_FILE).read_text())
    job = RowJob.model_validate_json((folder / JOB_FILE).read_text())
    torch.set_num_threads(job.threads)
    tables = load_tables(job.data, job.version, INDEX_FOLDER)
    run = training_run(job, tables, folder)
    files = RunFolder(folder)
    resumed_at = _resumed_at(files)
    train_with_progress(job.title, job.recipe, run, None)
    trained_here = resumed_at < run.options.steps
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    score = score_on(run.detector, tables, job.split, run.options.precision, folder / "evaluation")
    measured = Measured(
        **official(score).model_dump(),
        class_ap=score.class_ap,
        curve=_curve(files),
        **_speed(files),
        peak_rss_mib=peak_kib / 1024 if trained_here else None,
        resumed_at=resumed_at,
    )
    with whole_file(folder / MEASURED_FILE) as file:
        file.write(measured.model_dump_json().encode())
    return measured


def score_on(detector: BEVFormer, tables: SceneTables, split: str, precision: Precision, out: Path) -> Score:
    """The official score of a detector on a split, scene by scene as published.

    Raises:
        DataError: the split has no labels, or an image cannot be read.
    """
    options = InferenceOptions(device=CPU, precision=precision, decode_threads=1)
    detections = detect(detector, tables, tables.scene_names(split), options, lambda _token: None)
    return evaluate(detections, tables, split, out)


def _entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _resumed_at(folder: RunFolder) -> int:
    """The last step logged by the process whose checkpoint the run goes on from; 0 for a new run."""
    entries = _entries(folder.metrics) if folder.checkpoint.exists() else []
    return int(entries[-1]["step"]) if entries else 0


def _speed(folder: RunFolder) -> dict[str, float]:
    """Steps a second, and the share of their time that was spent waiting for data, over the steps that were logged."""
    seconds = [entry["seconds"] for entry in _entries(folder.metrics)]
    total = max(sum(sum(parts.values()) for parts in seconds), 1e-9)
    return {"steps_per_second": len(seconds) / total, "data_wait": sum(parts["data"] for parts in seconds) / total}


def _curve(folder: RunFolder) -> tuple[CurvePoint, ...]:
    """The scores along the way."""
    scores = [(entry["step"], entry["nds"], entry["mean_ap"], entry["tp_errors"]) for entry in _entries(folder.scores)]
    return tuple(
        CurvePoint(step=step, nds=nds, map=mean_ap, **{name.lower(): value for name, value in errors.items()})
        for step, nds, mean_ap, errors in scores
    )


def main() -> None:
    """Do the job of the folder that the command line names; ends with status 1 after telling what was wrong."""
    try:
        with told_clearly("The state is saved; `gains` goes on from it."):
            do_job(Path(sys.argv[1]))
    except typer.Exit as ended:  # told; there is no typer around us to turn it into a status
        sys.exit(ended.exit_code)


if __name__ == "__main__":
    main()
