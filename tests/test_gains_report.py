"""The report, from made-up runs: means, differences, losses, what is missing, and what does not count."""

import json
from pathlib import Path

import pytest
from gains_records import made_up

from pipeline.gains.places import Places, places_of
from pipeline.gains.record import CurvePoint, Record, add_record
from pipeline.gains.report import verdict, write_report
from pipeline.gains.rows import ROWS
from pipeline.gains.summary import summarise
from pipeline.gains.teacher_scores import file_teacher_score, read_teacher_scores
from schemas.errors import DataError

GAINS = {"feature": 0.01, "tempdistiller": 0.05, "pkd": -0.02}
NOISE = (0.0, 0.001, -0.001, 0.002, -0.002)


def runs() -> list[Record]:
    """Five seeds of ``none`` and of three distillers: two help, one hurts, by NDS; another has two seeds."""
    none = [made_up("none", seed, 0.20 + 0.01 * seed) for seed in range(5)]
    others = [
        made_up(row, seed, none[seed].nds + gain + NOISE[seed]) for row, gain in GAINS.items() for seed in range(5)
    ]
    return [*none, *others, *(made_up("fd3d", seed, none[seed].nds + NOISE[seed + 1]) for seed in range(2))]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    monkeypatch.chdir(tmp_path)
    return places_of("demo")


def report(places: Places, records: list[Record]) -> str:
    for record in records:
        add_record(places.rows, record)
    write_report(places, None)
    return places.page.read_text()


def line(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


def test_losses_are_told_as_well_as_wins() -> None:
    assert verdict(summarise(runs(), ROWS, None)) == (
        "NDS, Holm-corrected at 5%: better than none: feature, tempdistiller; worse than none: pkd; "
        "not told apart from none: fd3d; "
        "too few seeds to say: inherited-alone, fd3d-heatmap, structured-kd, unidistill, temporal-attention, best."
    )


def test_the_page_has_the_numbers(places: Places) -> None:
    text = report(places, runs())
    differences = text.split("## Paired differences")[1]
    # NDS: 5 points, noise of sd 0.158: t(0.975, 4) · sd / sqrt(5) = 0.196. mAP is half of it, mAVE its opposite.
    expected = "| `tempdistiller` | 5 | **+5.0** (+4.8 … +5.2), p < 0.001 | **+2.5** (+2.4 … +2.6), p < 0.001 |"
    assert line(differences, "| `tempdistiller`").startswith(expected)
    assert "| +0.000 (+0.000 … +0.000), p 1.000 | **-0.050** (-0.052 … -0.048), p < 0.001 |" in differences
    assert line(text, "| `none` | 5 | 22.0 ± 1.6 | 11.0 | 0.800 |")
    assert "`tempdistiller` at least +1.0 NDS, interval above zero: **met** (+5.0, +4.8 … +5.2)." in text
    assert "Velocity error falls most with a temporal distiller: **met** (`tempdistiller`, -0.050 m/s)." in text
    assert line(text.split("## Cost")[1], "| `pkd`") == "| `pkd` | 3.00 | 0.75 | 2.0% | 750 | +50 | 120 |"
    assert "some processor, 2 cores, Linux" in text
    assert "no setting has been tuned" in text


def test_what_the_losses_add_to_the_teachers_head_is_told(places: Places) -> None:
    inheriting = [made_up("inherited-alone", seed, 0.23 + 0.01 * seed) for seed in range(5)]
    added = report(places, [*runs(), *inheriting]).split("## What the losses add")[1].split("## Aims")[0]
    assert line(added, "| `tempdistiller`").startswith(
        "| `tempdistiller` | `inherited-alone` | 5 | **+2.0** (+1.8 … +2.2)"
    )
    assert not any(line.startswith(("| `inherited-alone`", "| `none`")) for line in added.splitlines())


def test_what_is_missing_is_marked(places: Places) -> None:
    text = report(places, runs())
    assert "**Not finished**" in text
    assert line(text, "| `fd3d` |").startswith("| `fd3d` | **2 of 5** |")
    assert line(text, "| `best` |").startswith("| `best` | **0 of 5** | – |")


def test_what_does_not_count_is_told(places: Places) -> None:
    foreign = made_up("none", 0, 0.9, study="bbbb")
    earlier = made_up("feature", 0, 0.9, fingerprint="old", overrides=("student.training.steps=1",))
    gone = made_up("abandoned", 0, 0.9)
    text = report(places, [*runs(), foreign, earlier, gone])
    assert "Not counted: 1 runs of other studies" in text
    assert "Not counted: 1 runs of `feature` with other settings than it has now." in text
    assert "Not counted: runs of `abandoned`, which is no row now." in text
    assert line(text, "| `none` | 5 | 22.0 ± 1.6 |")


def test_the_study_of_most_runs_is_reported_unless_one_is_named() -> None:
    other = [made_up("none", 0, 0.5, study="bbbb", date="2027-01-01T00:00:00+00:00")]
    assert summarise([*runs(), *other], ROWS, None).study == "aaaa"
    assert summarise([*runs(), *other], ROWS, "bbbb").rows["none"].mean("nds") == 50.0


def test_pictures_and_the_teachers_rows(places: Places) -> None:
    places.teacher.parent.mkdir(parents=True)
    places.teacher.write_text(
        "row,split,nds,map,mate,mase,maoe,mave,maae,note,seed\n"
        "teacher,val,0.35,0.3,0.6,0.3,0.4,0.5,0.2,as it filled the cache,0\n"
    )
    curve = [CurvePoint(step=step, nds=0.1, map=0.1, mate=1, mase=1, maoe=1, mave=1, maae=1) for step in (10, 20)]
    text = report(places, [*runs(), made_up("none-3x", 0, 0.3, curve=tuple(curve))])
    assert "Teacher at least 10 NDS above `none`: **met** (+13.0)." in text
    assert "| `teacher` | val | 35.0 | 30.0 |" in text
    for name in ("results-gains.png", "results-curves.png"):
        assert f"({name})" in text
        assert (places.page.parent / name).read_bytes().startswith(b"\x89PNG")


def test_the_teachers_lead_is_told_on_the_students_split_alone(places: Places) -> None:
    places.teacher.parent.mkdir(parents=True)
    places.teacher.write_text(
        "row,split,nds,map,mate,mase,maoe,mave,maae,note\nteacher,tune,0.5,0.3,0.6,0.3,0.4,0.5,0.2,\n"
    )
    assert "Teacher at least" not in report(places, runs())


def test_a_teachers_score_is_filed_from_its_evaluation(tmp_path: Path) -> None:
    errors = {"mATE": 0.6, "mASE": 0.3, "mAOE": 0.4, "mAVE": 0.5, "mAAE": 0.2}
    score, path = tmp_path / "score.json", tmp_path / "results" / "teacher.csv"
    filings = (("teacher", "val", 0.1), ("no-past", "val", 0.2), ("teacher", "tune", 0.4), ("teacher", "val", 0.3))
    for row, split, nds in filings:
        score.write_text(json.dumps({"split": split, "nds": nds, "mean_ap": 0.25, "tp_errors": errors, "samples": 9}))
        file_teacher_score(path, row, score, "how, and why")
    filed = read_teacher_scores(path)
    assert [(known.row, known.split, known.nds, known.mave) for known in filed] == [
        ("no-past", "val", 0.2, 0.5),
        ("teacher", "tune", 0.4, 0.5),
        ("teacher", "val", 0.3, 0.5),
    ]
    assert filed[0].note == "how, and why"


def test_links_lead_to_the_raw_numbers(places: Places) -> None:
    text = report(places, runs())
    assert "[raw numbers](../results/demo/rows.csv)" in text
    assert places_of("other").page == Path("results/other/results.md")


def test_a_damaged_teacher_file_is_told(places: Places) -> None:
    places.teacher.parent.mkdir(parents=True)
    places.teacher.write_text("row,split,nds\nteacher,val,high\n")
    with pytest.raises(DataError, match=r"teacher\.csv: column nds: .*Expected the columns row,split,nds"):
        report(places, runs())


def test_nothing_run_is_told() -> None:
    with pytest.raises(DataError, match="No run of the study is finished yet"):
        summarise([], ROWS, None)
