"""What a power cut may undo: bytes before their fsync, names before their folder's fsync. The order forbids harm."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cache_fakes import SLOTS, manifest_of, write_scene
from cache_faults import SMALL_SPECS, flipped

from cache.repair import repair
from cache.verify import verify
from cache.writing import CacheWriter, open_for_writing


class Journal:
    """Follows file operations, and knows at every moment what a power cut would undo."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.unwritten: set[Path] = set()
        """Files with bytes that are not on the disk yet."""
        self.unnamed: set[Path] = set()
        """Folders whose latest names are not on the disk yet."""
        self.history: list[tuple[str, Path, frozenset[Path]]] = []
        """Operations on names, each with what was not on the disk yet when it began."""
        self._paths: dict[int, Path] = {}
        for name in ("open", "write", "fsync", "replace", "mkdir", "unlink"):
            monkeypatch.setattr(os, name, self._followed(name, getattr(os, name)))

    def _followed(self, name: str, operation: Any) -> Any:
        def followed(*arguments: Any, **options: Any) -> Any:
            if name == "fsync":
                path = self._paths[arguments[0]]
                self.unwritten.discard(path)
                self.unnamed.discard(path)
                return None
            pending = frozenset(self.unwritten | self.unnamed)
            result = operation(*arguments, **options)
            if name == "open":
                self._paths[result] = Path(arguments[0])
            elif name == "write":
                self.unwritten.add(self._paths[arguments[0]])
            else:
                self._note(name, Path(arguments[-1 if name == "replace" else 0]), pending)
            return result

        return followed

    def _note(self, name: str, path: Path, pending: frozenset[Path]) -> None:
        """Note an operation on a name; locks and scratch are needed by nobody after a power cut."""
        if ".writers" not in path.parts and path.is_absolute():
            self.history.append((name, path, pending))
            self.unnamed.add(path.parent)

    def pending_at(self, name: str, path: Path) -> frozenset[Path]:
        """What was not on the disk yet when a name was made or removed for the last time."""
        return [pending for operation, target, pending in self.history if (operation, target) == (name, path)][-1]


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    return Journal(monkeypatch)


def opened(root: Path) -> CacheWriter:
    return open_for_writing(root, manifest_of(SMALL_SPECS), SLOTS)


def test_a_cache_exists_once_all_its_arrays_do(tmp_path: Path, journal: Journal) -> None:
    root = tmp_path / "cache"
    opened(root)
    assert journal.pending_at("replace", root / "zarr.json") == frozenset()
    assert journal.unnamed == frozenset()


def test_a_receipt_appears_once_all_it_names_is_on_the_disk(tmp_path: Path, journal: Journal) -> None:
    writer = opened(tmp_path)
    write_scene(writer, SLOTS[1])
    assert journal.pending_at("replace", tmp_path / "valid" / "c.1.0") == frozenset()
    assert journal.pending_at("replace", tmp_path / "receipts" / "scene-0002.parquet") == frozenset()
    assert journal.unnamed == journal.unwritten == frozenset()


def test_a_shard_goes_once_its_receipt_has_gone_for_good(tmp_path: Path, journal: Journal) -> None:
    """Else a power cut could bring the receipt back, and frames.parquet too, without the files they name."""
    writer = opened(tmp_path)
    write_scene(writer, SLOTS[1])
    flipped(tmp_path / "boxes" / "c.1.0.0.0", 0)
    repair(tmp_path, verify(tmp_path, lambda _: None), lambda _: None)
    order = [path.name for name, path, _ in journal.history if name == "unlink"]
    assert order[:3] == ["frames.parquet", "scene-0002.parquet", "c.1.0"]
    for name, path, pending in journal.history:
        if name == "unlink":
            assert pending == frozenset(), path
    assert journal.unnamed == frozenset()


def test_a_receipt_of_an_older_writer_is_covered_by_a_restarted_one(tmp_path: Path, journal: Journal) -> None:
    """``valid`` goes for good before the first shard of another writing takes the place of an old one."""
    writer = opened(tmp_path)
    write_scene(writer, SLOTS[1])
    (tmp_path / "receipts" / "scene-0002.parquet").unlink()
    shutil.rmtree(tmp_path / ".writers" / "partial")
    journal.history.clear()
    write_scene(writer, SLOTS[1], seed=3)
    names = [(name, path.name) for name, path, _ in journal.history]
    assert names[0] == ("unlink", "c.1.0")
    assert journal.pending_at("replace", tmp_path / "bev" / "c.1.0.0.0") <= {tmp_path / "receipts"}
