"""The arithmetic of the measurements: what is paired with what, and what is told of a goal."""

import os
from pathlib import Path

import pytest

from benchmarks.all import BENCHMARKS, DOCUMENT, tables_of, with_tables
from benchmarks.machine import drop_page_cache, scratch
from benchmarks.report import Comparison, Goal
from benchmarks.rounds import Spread, best_of, ratio, spread, time_rounds


def test_every_contender_runs_once_a_round_after_a_warm_up_and_none_is_always_first() -> None:
    calls: list[tuple[str, int]] = []
    prepared: list[int] = []
    contenders = {name: (lambda number, name=name: calls.append((name, number))) for name in "abc"}

    seconds = time_rounds(contenders, rounds=3, prepare=lambda: prepared.append(len(calls)))

    assert calls[:3] == [("a", 0), ("b", 0), ("c", 0)]
    assert [sorted(calls[start : start + 3]) for start in (3, 6, 9)] == [
        [("a", number), ("b", number), ("c", number)] for number in (1, 2, 3)
    ]
    assert {calls[start][0] for start in (3, 6, 9)} == {"a", "b", "c"}
    assert prepared == list(range(3, 12))
    assert [len(values) for values in seconds.values()] == [3, 3, 3]
    assert all(value >= 0 for values in seconds.values() for value in values)


def test_a_ratio_is_taken_round_by_round() -> None:
    assert ratio([2.0, 40.0, 9.0], [1.0, 10.0, 3.0]) == Spread(3.0, 2.0, 4.0)
    assert spread([3.0, 1.0, 2.0]).scaled(10) == Spread(20.0, 10.0, 30.0)
    assert best_of([[3.0, 3.0, 3.0], [1.0, 9.0, 2.0]]) == [1.0, 9.0, 2.0]


@pytest.mark.parametrize(
    ("goal", "value", "told"),
    [
        (Goal(5), 5.0, "met"),
        (Goal(5), 4.0, "missed by 20%"),
        (Goal(1.05, at_most=True), 1.04, "met"),
        (Goal(1.05, at_most=True), 1.26, "missed by 20%"),
    ],
)
def test_a_missed_goal_is_told(goal: Goal, value: float, told: str) -> None:
    row = Comparison("peer", "warm", spread([1.0]), spread([1.0]), spread([value]), goal)

    assert row.cells()[-2:] == (str(goal), told)


def test_dropping_pages_changes_no_file(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "file").write_bytes(os.urandom(10_000))
    before = (tmp_path / "below" / "file").read_bytes()

    drop_page_cache(tmp_path)

    assert (tmp_path / "below" / "file").read_bytes() == before


def test_too_little_room_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"GB free, this benchmark needs .* --folder"), scratch(tmp_path, 1e9):
        pass
    with scratch(tmp_path, 0) as folder:
        assert folder.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_tables_replace_what_stands_between_their_markers() -> None:
    document = "a\n<!-- table: one -->\nold\n<!-- end -->\nb\n<!-- table: two -->\n<!-- end -->\n"
    printed = "heading\n| x |\n|---|\n\n| y |\n(3 s)\n"

    replaced = with_tables(document, {"one": tables_of(printed)})

    assert replaced == (
        "a\n<!-- table: one -->\n\n| x |\n|---|\n\n| y |\n\n<!-- end -->\nb\n<!-- table: two -->\n<!-- end -->\n"
    )
    assert with_tables(replaced, {"one": tables_of(printed)}) == replaced
    with pytest.raises(ValueError, match="table: three"):
        with_tables(document, {"three": "|"})


def test_the_document_has_a_place_for_every_table() -> None:
    document = DOCUMENT.read_text()
    assert with_tables(document, dict.fromkeys(BENCHMARKS, "| x |")).count("| x |") == len(BENCHMARKS)
    for name in BENCHMARKS:
        assert f"python -m benchmarks.{name}" in document
