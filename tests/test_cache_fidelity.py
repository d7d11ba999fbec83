"""``fidelity.json``: whole or absent, of its own cache, and in nobody's way."""

import json
import shutil
from pathlib import Path

import pytest
from cache_fakes import SLOTS, SPECS, manifest_of, write_cache
from cache_no_fsync import no_fsync
from pydantic import ValidationError

from cache import open_cache
from cache.writing import SceneSlot, open_for_writing
from schemas.errors import CacheError, DiskError
from schemas.fidelity import BoxFidelity, FeatureFidelity, Fidelity

__all__ = ["no_fsync"]

FEATURE = FeatureFidelity(
    name="bev", centred_error=0.0072, cosine=0.99997, largest_error=0.0156, largest_error_std=0.0234
)
CONSTANT = FeatureFidelity(name="query_boxes", centred_error=None, cosine=None, largest_error=0, largest_error_std=0)
BOXES = BoxFidelity(
    chosen="score",
    threshold=0.1,
    best=50,
    within_m=2,
    boxes=31,
    unmatched=1,
    unmatched_best_score=0.12,
    score_change_mean=0.0001,
    score_change_max=0.002,
    center_change_mean_m=0.001,
    center_change_max_m=0.03,
)
MEASURED = Fidelity(frames=4, features=(FEATURE, CONSTANT), boxes=BOXES)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_cache(tmp_path / "cache").write_fidelity(MEASURED)
    return tmp_path / "cache"


def test_what_was_measured_comes_back(path: Path) -> None:
    assert open_cache(path).fidelity() == MEASURED


def test_a_second_measurement_replaces_the_first(path: Path) -> None:
    later = Fidelity(frames=9, features=(FEATURE,))
    write_cache(path, slots=()).write_fidelity(later)
    assert open_cache(path).fidelity() == later
    assert [file.name for file in (path / ".writers").glob("*.partial")] == []


def test_a_cache_that_was_never_measured_says_nothing(tmp_path: Path) -> None:
    write_cache(tmp_path / "cache")
    assert open_cache(tmp_path / "cache").fidelity() is None


def test_a_copy_may_leave_it_out(path: Path) -> None:
    (path / "fidelity.json").unlink()
    shutil.rmtree(path / ".writers")
    cache = open_cache(path)
    assert cache.fidelity() is None
    assert cache.frames.num_rows == 9


def test_it_is_there_while_nothing_is_cached_yet(tmp_path: Path) -> None:
    """The first frames are measured before their scene is committed."""
    writer = write_cache(tmp_path / "cache", slots=())
    writer.write_fidelity(MEASURED)
    assert open_cache(tmp_path / "cache").fidelity() == MEASURED


def test_that_of_another_cache_is_refused(path: Path, tmp_path: Path) -> None:
    other = open_for_writing(tmp_path / "other", manifest_of(SPECS[:1]), [SceneSlot("scene-0001", "t", 1)])
    other.write_fidelity(MEASURED)
    shutil.copy(tmp_path / "other" / "fidelity.json", path / "fidelity.json")
    expected, found = manifest_of().fingerprint, manifest_of(SPECS[:1]).fingerprint
    message = rf"fidelity\.json belongs to another cache: expected fingerprint {expected}, found {found}\. Remove it"
    with pytest.raises(CacheError, match=message):
        open_cache(path).fidelity()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ('{"finger', "Unterminated string"),
        ("[1]", "list indices must be integers"),
        ('{"fingerprint": "ab"}', "it has no 'fidelity'"),
        ('{"fingerprint": "ab", "fidelity": {"frames": 0, "features": []}}', "frames: .*greater than or equal to 1"),
        ('{"fingerprint": "ab", "fidelity": {"frames": 1, "features": [], "x": 1}}', "x: Extra inputs"),
    ],
)
def test_a_damaged_file_is_refused_by_reason(path: Path, text: str, reason: str) -> None:
    (path / "fidelity.json").write_text(text)
    with pytest.raises(CacheError, match=rf"fidelity\.json cannot be read: {reason}.*\. Remove it: nothing else dep"):
        open_cache(path).fidelity()


def test_bytes_that_are_no_text_are_refused(path: Path) -> None:
    (path / "fidelity.json").write_bytes(b'{"fingerprint": "\xff\xfe"}')
    with pytest.raises(CacheError, match=r"fidelity\.json cannot be read: .*Remove it"):
        open_cache(path).fidelity()


def test_a_number_that_is_none_is_refused() -> None:
    values = FEATURE.model_dump() | {"largest_error": float("nan")}
    with pytest.raises(ValidationError, match="finite number"):
        FeatureFidelity.model_validate(values)


def test_a_refusing_disk_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", full)
    with pytest.raises(DiskError, match=r"writing the cache's fidelity failed: No space left on device"):
        open_for_writing(path, manifest_of(), SLOTS).write_fidelity(Fidelity(frames=1, features=()))
    monkeypatch.undo()
    assert open_cache(path).fidelity() == MEASURED


def test_the_file_is_plain_json(path: Path) -> None:
    document = json.loads((path / "fidelity.json").read_text(encoding="utf-8"))
    assert document["fingerprint"] == open_cache(path).manifest.fingerprint
    assert document["fidelity"]["features"][0]["centred_error"] == 0.0072
    assert document["fidelity"]["features"][1]["cosine"] is None
