"""The kill harness: a few kills in the suite, and proof that it sees what it looks for."""

import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cache_fakes import SLOTS, write_cache
from cache_no_fsync import no_fsync

from benchmarks.killed_writers import random_death
from benchmarks.store_checks import APPENDING, COMMITTING, Findings, Reference, doing, left_over, look, open_reference
from cache.writing import SceneWriter, open_for_writing

__all__ = ["no_fsync"]

REPOSITORY = Path(__file__).resolve().parent.parent
NAMES = {slot.name for slot in SLOTS}


def test_a_few_kills() -> None:
    """In a process of its own: it forks, and a test runner has threads."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.kill_test", "--kills", "6", "--programs", "0", "--tiers", "int8"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\| all \| +\| +\| [67] \|", done.stdout), done.stdout


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    write_cache(tmp_path / "reference")
    return open_reference(tmp_path / "reference")


@pytest.fixture
def cache(reference: Reference, tmp_path: Path) -> Path:
    """The same once more."""
    return shutil.copytree(reference.path, tmp_path / "cache")


def test_a_whole_cache_has_no_fault(cache: Path, reference: Reference) -> None:
    findings = Findings()
    assert look(cache, reference, set(), findings) == NAMES
    assert findings == Findings()
    assert left_over(cache, reference) == []


def test_a_changed_frame_is_seen(cache: Path, reference: Reference) -> None:
    shard = next((cache / "query_boxes").glob("c.1.*"))
    data = bytearray(shard.read_bytes())
    data[3] ^= 1
    shard.write_bytes(data)
    findings = Findings()
    look(cache, reference, set(), findings)
    assert findings.bad > 0
    assert left_over(cache, reference) == [shard.relative_to(cache).as_posix()]


def test_a_lost_scene_is_seen(cache: Path, reference: Reference) -> None:
    (cache / "receipts" / "scene-0002.parquet").unlink()
    findings = Findings()
    assert look(cache, reference, NAMES, findings) == NAMES - {"scene-0002"}
    assert findings.lost == 1
    (cache / "zarr.json").write_text("{}")
    look(cache, reference, NAMES, findings)
    assert findings.lost == 4
    assert len(findings.complaints) == 1


def test_leftovers_are_seen(cache: Path, reference: Reference) -> None:
    (cache / "bev" / "c.9.0").touch()
    (cache / ".writers" / "partial" / "scene-0001.abc").mkdir()
    assert left_over(cache, reference) == ["bev/c.9.0", "scene-0001.abc"]


def test_what_a_writer_was_doing(reference: Reference, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    writer = open_for_writing(cache, reference.cache.manifest, SLOTS)
    folder = _unfinished(writer.scene("scene-0002"), cache)
    assert doing(cache, folder, reference) == APPENDING
    shutil.copyfile(next((reference.path / "bev").glob("c.1.*")), cache / ".writers" / "partial" / folder / "bev")
    assert doing(cache, folder, reference) == COMMITTING


def _unfinished(scene: SceneWriter, cache: Path) -> str:
    scene.__enter__()
    (folder,) = (cache / ".writers" / "partial").iterdir()
    return folder.name


def test_deaths_come_at_any_operation() -> None:
    chance = random.Random(0)
    deaths = [random_death(chance, 5) for _ in range(200)]
    assert {death.operation for death in deaths} == {1, 2, 3, 4, 5}
    assert {death.manner for death in deaths} == {"before", "after", "half of"}
