"""The file of finished runs: what is written is read, lines are sorted and unique, damage is told."""

from pathlib import Path

import pytest
from gains_records import made_up

from pipeline.gains.record import COLUMNS, CurvePoint, add_record, read_records
from schemas.errors import DataError


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    point = CurvePoint(step=10, nds=0.1, map=0.2, mate=0.3, mase=0.4, maoe=0.5, mave=0.6, maae=0.7)
    run = made_up("tempdistiller-no-history", 1, 0.25, curve=(point,), peak_rss_mib=None)
    add_record(tmp_path / "new" / "rows.csv", run)
    assert read_records(tmp_path / "new" / "rows.csv") == (run,)


def test_no_file_is_no_run(tmp_path: Path) -> None:
    assert read_records(tmp_path / "rows.csv") == ()


def test_the_order_of_arrival_does_not_matter(tmp_path: Path) -> None:
    runs = [made_up(row, seed, 0.2) for row in ("none", "pkd") for seed in (0, 1)]
    for path, order in ((tmp_path / "a.csv", runs), (tmp_path / "b.csv", runs[::-1])):
        for run in order:
            add_record(path, run)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_a_run_made_again_takes_its_place(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    for nds in (0.1, 0.2):
        add_record(path, made_up("none", 0, nds))
    add_record(path, made_up("none", 0, 0.3, study="bbbb"))
    assert [run.nds for run in read_records(path)] == [0.2, 0.3]
    assert list(tmp_path.iterdir()) == [path], "the folder is the repository's: nothing else is left there"


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    add_record(path, made_up("none", 0, 0.1234))
    path.write_text(path.read_text().replace("0.1234", "good"))
    with pytest.raises(DataError, match=r"rows\.csv, run 1: column nds: .*remove that line to have the run made again"):
        read_records(path)


def test_the_columns_are_a_promise() -> None:
    assert (
        *("study", "fingerprint", "label", "group", "row", "seed", "distillers", "overrides", "steps", "split"),
        *("recipe", "cache", "data", "generator", "packages", "program", "threads", "jobs", "machine"),
        *("nds", "map", "mate", "mase", "maoe", "mave", "maae", "class_ap", "curve"),
        *("steps_per_second", "data_wait", "peak_rss_mib", "resumed_at", "wall_s", "date"),
    ) == COLUMNS
