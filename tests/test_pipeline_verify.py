"""``verify-cache`` and ``repair-cache``: what they print, what they return, and what they leave to do."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cache_fakes import SLOTS, manifest_of, write_scene
from cache_faults import SMALL_SPECS, files_of, flipped
from cache_no_fsync import no_fsync
from typer.testing import CliRunner

from cache.reading import open_cache
from cache.writing import CacheWriter, open_for_writing
from pipeline.__main__ import app
from pipeline.repair_cache import repair_cache
from pipeline.verify_cache import verify_cache
from schemas.errors import CacheError

__all__ = ["no_fsync"]

Printed = pytest.CaptureFixture[str]


def opened(root: Path) -> CacheWriter:
    return open_for_writing(root, manifest_of(SMALL_SPECS), SLOTS, made_with={"device": "cpu", "threads": "1"})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A cache with all of its scenes."""
    writer = opened(tmp_path / "cache")
    for slot in SLOTS:
        write_scene(writer, slot)
    writer.write_parameters({"weight": np.arange(9, dtype=np.float32)})
    return tmp_path / "cache"


def test_a_sound_cache(root: Path, capsys: Printed) -> None:
    before = files_of(root)
    assert verify_cache(root) == 0
    printed = capsys.readouterr().out
    assert "verify-cache: 3/3 scenes in " in printed
    assert f"{root} holds 3 of 3 scenes: 9 frames, " in printed
    assert printed.endswith("Every file and every frame is as its receipt says.\n")
    assert repair_cache(root) == 0
    assert "Nothing to mend" in capsys.readouterr().out
    assert files_of(root) == before


def test_damage_is_printed_by_scene_array_and_step_with_the_commands_that_mend_it(root: Path, capsys: Printed) -> None:
    for step in (0, 1, 3):
        flipped(root / "boxes" / "c.1.0.0.0", step * 28)
    (root / "bev" / "c.0.0.0.0").unlink()
    flipped(root / "valid" / "c.2.0", 0)
    assert verify_cache(root) == 5
    lines = capsys.readouterr().out.splitlines()
    table = [line.split() for line in lines if line.startswith("  ")]
    assert table[0] == ["scene", "array", "step", "remedy", "what"]
    assert [row[:4] for row in table[1:]] == [
        ["scene-0001", "bev", "-", "scene"],
        ["scene-0002", "boxes", "0-1,3", "scene"],
        ["scene-0003", "valid", "-", "made"],
    ]
    assert "the file that the receipt names is missing (bev/c.0.0.0.0)" in lines[3]
    assert "as in the receipt, found" in lines[4]
    assert ", and 2 more (boxes/c.1.0.0.0)" in lines[4]
    assert lines[-2:] == [
        f"To mend it: make repair-cache CACHE={root}",
        f"then make what it drops again: make cache-teacher CACHE={root} (with the options that filled the cache)",
    ]


def test_repair_tells_what_it_dropped_and_what_comes_next(root: Path, capsys: Printed) -> None:
    before = files_of(root)
    flipped(root / "boxes" / "c.1.0.0.0", 3)
    (root / "receipts" / "scene-0003.parquet").unlink()
    flipped(root / "valid" / "c.0.0", 0)
    (root / "bev" / "notes.txt").write_text("mine")
    assert repair_cache(root) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "dropped: scene-0002" in lines
    assert f"mended: {root}/valid/c.0.0" in lines
    assert "remains removed: scene-0003" in lines
    assert f"left as it is: {root}/bev/notes.txt" in lines
    assert lines[-1] == (
        f"To make what was dropped again: make cache-teacher CACHE={root} (with the options that filled the cache)"
    )
    assert verify_cache(root) == 0
    assert open_cache(root).scene_names == ("scene-0001",)
    for slot in SLOTS[1:]:
        assert write_scene(opened(root), slot)
    (root / "bev" / "notes.txt").unlink()
    assert files_of(root) == before


def test_removed_parameters_are_to_be_written_again(root: Path, capsys: Printed) -> None:
    flipped(root / "teacher.safetensors", -1)
    assert verify_cache(root) == 1
    assert "make cache-teacher" in capsys.readouterr().out
    assert repair_cache(root) == 0
    assert f"To make what was dropped again: make cache-teacher CACHE={root}" in capsys.readouterr().out
    assert not (root / "teacher.safetensors").exists()


def test_remains_of_a_killed_writer_are_harmless(root: Path, capsys: Printed) -> None:
    (root / "receipts" / "scene-0002.parquet").unlink()
    assert verify_cache(root) == 0
    printed = capsys.readouterr().out
    assert "5 arrays" in printed
    assert f"Remains of killed writers are harmless; make repair-cache CACHE={root} removes them." in printed


def test_what_no_program_can_mend_is_said(root: Path, capsys: Printed) -> None:
    document = json.loads((root / "zarr.json").read_text())
    document["consolidated_metadata"]["metadata"]["bev"]["attributes"]["dequantise"]["limit"] = 128
    (root / "zarr.json").write_text(json.dumps(document))
    assert verify_cache(root) == 1
    printed = capsys.readouterr().out
    assert f"Restore {root}/zarr.json from a copy, or make the cache again in another folder." in printed
    assert "repair-cache" not in printed
    assert repair_cache(root) == 0
    assert f"left as it is: {root}/zarr.json" in capsys.readouterr().out


def test_scenes_made_in_several_ways_are_told(root: Path, capsys: Printed) -> None:
    verify_cache(root)
    assert "ways" not in capsys.readouterr().out
    (root / "receipts" / "scene-0002.parquet").unlink()
    other = open_for_writing(root, manifest_of(SMALL_SPECS), SLOTS, made_with={"device": "cuda", "threads": "1"})
    write_scene(other, SLOTS[1])
    assert verify_cache(root) == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("The scenes were made in 2 ways:")
    assert lines[start + 1 : start + 3] == [
        "  2 scenes (scene-0001, ...): device cpu",
        "  1 scenes (scene-0002, ...): device cuda",
    ]


def test_a_cache_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    for program in (verify_cache, repair_cache):
        with pytest.raises(CacheError, match="there is no teacher cache at"):
            program(tmp_path / "nowhere")


def test_the_commands_exit_as_make_expects(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def status(command: str) -> int:
        return CliRunner().invoke(app, [command, "--cache", str(root)]).exit_code

    assert status("verify-cache") == 0
    shutil.copy(root / "boxes" / "c.1.0.0.0", root / "boxes" / "c.0.0.0.0")
    assert [status(command) for command in ("verify-cache", "repair-cache", "verify-cache")] == [1, 0, 0]
    (root / "zarr.json").write_text("{")
    assert [status(command) for command in ("verify-cache", "repair-cache")] == [1, 1]
