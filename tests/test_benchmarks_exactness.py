"""Students fed live and from the cache: what is run, what is kept, and what is told of the differences."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.cached_equals_live import main, table_of, train_missing
from benchmarks.exactness_runs import MEASURED_FILE, SOURCES, ExactnessRecord, Source, add_record, read_records
from pipeline.gains.workers import Process
from pipeline.recipes import load_recipe


def record_of(source: Source, seed: int, nds: float) -> ExactnessRecord:
    errors = {"mate": 0.7, "mase": 0.3, "maoe": 0.5, "mave": 0.6, "maae": 0.2}
    told = {"distillers": "feature", "steps": 3, "split": "tune", "teacher": "ab12", "machine": "a, 2 cores"}
    return ExactnessRecord(
        **errors,
        **told,
        nds=nds,
        map=0.1,
        study="one",
        source=source,
        seed=seed,
        wall_s=1.5,
        date="2026-01-01T00:00:00",
    )


def test_records_are_kept_sorted_and_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "results" / "exactness.csv"
    assert read_records(path) == []
    records = [record_of(source, seed, 0.25) for seed in range(2) for source in SOURCES]
    for record in reversed(records):
        add_record(path, record)
    assert read_records(path) == records


def test_differences_are_taken_seed_by_seed() -> None:
    live = {0: 0.300, 1: 0.340, 2: 0.320}
    int8 = {0: 0.301, 1: 0.341, 2: 0.321}
    records = [record_of("live", seed, nds) for seed, nds in live.items()]
    records += [record_of("int8", seed, nds) for seed, nds in int8.items()]
    records += [record_of("float16", seed, nds) for seed, nds in {0: 0.29, 1: 0.36}.items()]

    rows = table_of(records)

    assert rows[0] == ("live (float32)", "3", "32.00 (30.00–34.00)", "10.00 (10.00–10.00)", "", "", "", "")
    assert rows[1][1:2] + rows[1][4:] == ("3", "+0.10", "+0.10 to +0.10", "within ±0.5", "met")
    assert rows[2][1] == "2"
    assert rows[2][4] == "+0.50"
    assert rows[2][-1].startswith("not shown: reaches ±")


def test_what_is_done_is_not_run_again(tmp_path: Path) -> None:
    asked: list[tuple[Source, int]] = []

    def process(source: Source, seed: int) -> Process:
        asked.append((source, seed))
        folder = run_folder(source, seed)
        folder.mkdir(parents=True)
        scores = dict.fromkeys(("nds", "map", "mate", "mase", "maoe", "mave", "maae"), 0.5)
        (folder / MEASURED_FILE).write_text(json.dumps(scores))
        status = 3 if (source, seed) == ("int8", 1) else 0
        return Process(f"{source}, seed {seed}", (sys.executable, "-c", f"exit({status})"), folder / "log.txt")

    def run_folder(source: Source, seed: int) -> Path:
        return tmp_path / f"{source}-{seed}"

    study = SimpleNamespace(
        key="one", recipe=load_recipe("demo"), split="tune", teacher="ab12", process=process, run_folder=run_folder
    )
    path = tmp_path / "exactness.csv"
    add_record(path, record_of("live", 0, 0.25))

    assert train_missing(study, 2, 2, path) == 1

    assert asked == [("int8", 0), ("float16", 0), ("live", 1), ("int8", 1), ("float16", 1)]
    assert [(record.source, record.seed) for record in read_records(path)] == [
        ("live", 0),
        ("int8", 0),
        ("float16", 0),
        ("live", 1),
        ("float16", 1),
    ]


def test_the_table_of_nothing_is_a_heading(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only-table", "--results", str(tmp_path / "none.csv")]) == 0
    assert "none trained yet" in capsys.readouterr().out


def test_the_table_is_of_the_study_that_was_added_to_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "exactness.csv"
    add_record(path, record_of("live", 0, 0.25))
    add_record(path, record_of("live", 0, 0.75).model_copy(update={"study": "two", "date": "2026-01-02T00:00:00"}))
    assert main(["--only-table", "--results", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "75.00" in printed
    assert "25.00" not in printed
