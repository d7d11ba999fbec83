"""The same students trained from the teacher's live numbers and from the cache, to see whether rounding costs score.

    python -m benchmarks.cached_equals_live --seeds 5 --jobs 2      # trains what is not yet in results/exactness.csv
    python -m benchmarks.cached_equals_live --only-table            # what was trained so far

Three students for every seed: fed by the teacher's float32 as it left the network, by the int8 cache and by the float16
one. Same weights, same clips in the same order, same loss; the teacher's stream over the scenes is the same, which is
checked before anything is trained: rounded as the teacher stage rounds, the live features are the caches' to the last
bit. The difference of the official NDS is taken seed by seed; its 95 % t-interval shall lie within ±0.5.

Every student runs in a process of its own with one thread and goes on from its checkpoint; a finished one is a line of
the CSV file. Prints a Markdown table.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks.exactness_runs import (
    JOB_FILE,
    SOURCES,
    ExactnessJob,
    ExactnessRecord,
    Source,
    add_record,
    frames_apart,
    make_caches,
    make_live,
    read_records,
    train_and_score,
)
from benchmarks.report import print_table
from pipeline.dataset import DataChoice, open_data
from pipeline.demo_teacher import teacher_checkpoint
from pipeline.gains.fingerprint import cache_hash, machine_in_words, short_hash, student_hash, surroundings
from pipeline.gains.run_row import RowJob, training_run
from pipeline.gains.statistics import paired_difference
from pipeline.gains.workers import Process, run_all
from pipeline.paths import OUT
from pipeline.recipe import Recipe
from pipeline.recipes import load_recipe, with_distillers, with_training
from pipeline.teacher_stage.job import settle_arithmetic
from pipeline.teacher_stage.teacher import WeightsSource
from train.run import distillers_of

WITHIN_POINTS = 0.5
RESULTS = Path(__file__).resolve().parent.parent / "results" / "exactness.csv"
COLUMNS = ("seeds", "NDS", "mAP", "NDS minus live", "95 % interval", "goal", "")
CPU = torch.device("cpu")


class Study:
    """The runs of one recipe: its teacher, caches and live features, and what identifies them.

    Args:
        recipe: with the distillers.
        split: to score.
        folder: for caches, live features and runs.
    """

    def __init__(self, recipe: Recipe, split: str, folder: Path) -> None:
        self.recipe, self.split, self._folder = recipe, split, folder
        tables = open_data(recipe, DataChoice())
        weights = WeightsSource(teacher_checkpoint(recipe, DataChoice(), CPU))
        self._data, self._version = tables.data_root, tables.version
        self._caches = make_caches(recipe, tables, weights, folder)
        names = distillers_of(training_run(self._row("live", 0), tables, folder)).requires
        self._live = make_live(recipe, tables, weights, folder, names)
        for tier, cache in self._caches.items():
            if apart := frames_apart(self._live, cache, names):
                raise SystemExit(f"the {tier} cache in {folder} is not of the live features, first at {apart[0]}")
        self.teacher = self._caches["int8"].manifest.teacher.weights_sha256[:12]
        around = surroundings(recipe, tables, split)
        cache = cache_hash(self._caches["int8"].manifest, around["data"])
        self.key = short_hash({"student": student_hash(recipe, distilled=True), "cache": cache, **around})

    def process(self, source: Source, seed: int) -> Process:
        """The run of one student, its job written."""
        folder = self.run_folder(source, seed)
        folder.mkdir(parents=True, exist_ok=True)
        job = ExactnessJob(row=self._row(source, seed), live=self._live if source == "live" else None)
        (folder / JOB_FILE).write_text(job.model_dump_json())
        command = (sys.executable, "-m", "benchmarks.cached_equals_live", "--worker", str(folder))
        return Process(f"{source}, seed {seed}", command, folder / "log.txt")

    def run_folder(self, source: Source, seed: int) -> Path:
        """Where a student is trained."""
        return self._folder / "runs" / self.key / f"{source}-seed{seed}"

    def _row(self, source: Source, seed: int) -> RowJob:
        return RowJob(
            title=f"{source}, seed {seed}",
            recipe=with_training(self.recipe, "student", seed),
            data=self._data,
            version=self._version,
            cache=self._folder / ("int8" if source == "live" else source),
            split=self.split,
        )


def train_missing(study: Study, seeds: int, jobs: int, results: Path) -> int:
    """Train and score every student that is not in the results; returns how many failed."""
    done = {(record.source, record.seed) for record in read_records(results) if record.study == study.key}
    missing = [(source, seed) for seed in range(seeds) for source in SOURCES if (source, seed) not in done]
    processes = [study.process(source, seed) for source, seed in missing]
    begun: dict[int, float] = {}
    failed = []

    def on_start(number: int) -> None:
        begun[number] = time.monotonic()

    def on_end(number: int, status: int) -> None:
        process, (source, seed) = processes[number], missing[number]
        if status:
            failed.append(number)
            print(f"{process.name} failed with status {status}: {process.log}", file=sys.stderr, flush=True)
            return
        record = ExactnessRecord(
            **train_and_score(study.run_folder(source, seed)).model_dump(),
            study=study.key,
            source=source,
            seed=seed,
            distillers=",".join(study.recipe.student.training.distillation.names),
            steps=study.recipe.student.training.steps,
            split=study.split,
            teacher=study.teacher,
            machine=machine_in_words(),
            wall_s=round(time.monotonic() - begun[number], 1),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        add_record(results, record)
        print(f"{process.name}: NDS {100 * record.nds:.2f}, {record.wall_s:.0f} s", file=sys.stderr, flush=True)

    run_all(processes, jobs, on_start, on_end)
    return len(failed)


def table_of(records: Sequence[ExactnessRecord]) -> list[tuple[str, ...]]:
    """The rows of one study, NDS and mAP in points."""
    of = {source: {record.seed: record for record in records if record.source == source} for source in SOURCES}
    rows: list[tuple[str, ...]] = []
    for source, found in of.items():
        pairs = sorted(found.keys() & of["live"].keys())
        nds, mean_ap = (_mean([100 * record.value(name) for record in found.values()]) for name in ("nds", "map"))
        told = (f"{source}{' (float32)' if source == 'live' else ''}", str(len(found)), nds, mean_ap)
        if source == "live":
            rows.append((*told, "", "", "", ""))
            continue
        apart = paired_difference([100 * (found[seed].nds - of["live"][seed].nds) for seed in pairs])
        reach = max(abs(apart.low), abs(apart.high))
        verdict = "met" if reach <= WITHIN_POINTS else f"not shown: reaches ±{reach:.2f}"
        interval = f"{apart.low:+.2f} to {apart.high:+.2f}"
        rows.append((*told, f"{apart.mean:+.2f}", interval, f"within ±{WITHIN_POINTS:g}", verdict))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing, and print the table; returns how many runs failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--set", dest="assignments", action="append", default=[], help="dotted.key=value of the recipe")
    parser.add_argument("--distillers", help="default: the recipe's")
    parser.add_argument("--split", default="tune", help="to score")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, one thread each")
    parser.add_argument(
        "--folder", type=Path, help="for caches, live features and runs; default: out/<recipe>/exactness"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--only-table", action="store_true", help="train nothing")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.worker is not None:
        train_and_score(chosen.worker)
        return 0
    failed = 0
    key: str | None = None
    if not chosen.only_table:
        torch.set_num_threads(1)  # caches and live features: other threads may add up otherwise
        settle_arithmetic()
        named = () if chosen.distillers is None else tuple(chosen.distillers.split(","))
        recipe = with_distillers(load_recipe(chosen.recipe, chosen.assignments), named)
        study = Study(recipe, chosen.split, (chosen.folder or OUT / recipe.name / "exactness").absolute())
        failed, key = train_missing(study, chosen.seeds, chosen.jobs, chosen.results), study.key
    _print(read_records(chosen.results), key)
    return failed


def _print(records: Sequence[ExactnessRecord], key: str | None) -> None:
    """The table of a study; without a key, of the one that was added to last."""
    if key is None and records:
        key = max(records, key=lambda record: record.date).study
    chosen = [record for record in records if record.study == key]
    setting = "none trained yet"
    if chosen:
        one = chosen[0]
        setting = f"{one.distillers}, {one.steps} steps, {one.split}, teacher {one.teacher}"
    print_table((f"targets ({setting})", *COLUMNS), table_of(chosen) if chosen else [])


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.2f} ({min(values):.2f}–{max(values):.2f})" if values else ""


if __name__ == "__main__":
    sys.exit(main())
