"""A group that may be another's, or that nobody may read: nothing is judged by it and nothing dropped."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zarr
from cache_fakes import SLOTS, write_cache
from cache_no_fsync import no_fsync

from cache import open_cache
from cache.repair import repair
from cache.verify import Verification, scenes_of, verify
from schemas.errors import CacheError, DiskError

__all__ = ["no_fsync"]

SHARD = Path("bev") / "c.1.0.0.0.0"
RECEIPT = Path("receipts") / "scene-0002.parquet"
VALID = Path("valid") / "c.1.0"


def verified(root: Path) -> Verification:
    return verify(root, lambda _: None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A cache of which the first two scenes are made."""
    write_cache(tmp_path / "cache", SLOTS[:2])
    return tmp_path / "cache"


def refuse(monkeypatch: pytest.MonkeyPatch, name: str, refused: Path, error: OSError) -> None:
    """Let one method of ``Path`` fail for one file."""
    method = getattr(Path, name)

    def refusing(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == refused:
            raise error
        return method(path, *arguments, **options)

    monkeypatch.setattr(Path, name, refusing)


@pytest.mark.parametrize(
    ("name", "path"),
    [("open", SHARD), ("read_bytes", RECEIPT), ("read_bytes", VALID), ("read_bytes", Path("frames.parquet"))],
)
def test_a_refusal_is_told_from_a_bad_sector(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str, path: Path
) -> None:
    """What nobody may read is not known to be damaged, and must not be dropped."""
    with monkeypatch.context() as patch:
        refuse(patch, name, root / path, PermissionError(errno.EACCES, "Permission denied", str(root / path)))
        found = verified(root)
        assert [damage.remedy for damage in found.damages] == ["mend permissions"]
        assert "Permission denied" in found.damages[0].what
        assert [damage.remedy for damage in repair(root, found, lambda _: None).left] == ["mend permissions"]
        refuse(patch, name, root / path, OSError(errno.EIO, "Input/output error", str(root / path)))
        assert [damage.remedy for damage in verified(root).damages] in (["drop scene"], ["rebuild"])
    assert verified(root).damages == ()


def test_a_cache_without_permission_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = PermissionError(errno.EACCES, "Permission denied", str(root))
    with monkeypatch.context() as patch:
        refuse(patch, "read_bytes", root / "zarr.json", error)
        with pytest.raises(DiskError, match=r"opening the cache failed: Permission denied .* mend its permissions"):
            verified(root)
    nothing = verified(root)
    with monkeypatch.context() as patch:
        refuse(patch, "iterdir", root / "receipts", error)
        with pytest.raises(DiskError, match=r"verifying the cache failed: Permission denied .* mend its permissions"):
            verified(root)
    with monkeypatch.context() as patch:
        refuse(patch, "mkdir", root / ".writers", error)
        with pytest.raises(DiskError, match=r"repairing the cache failed: Permission denied .* mend its permissions"):
            repair(root, nothing, lambda _: None)


def rewritten(root: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads((root / "zarr.json").read_text())
    change(document["attributes"])
    (root / "zarr.json").write_text(json.dumps(document))


BAD_GROUPS: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (lambda root: (root / "zarr.json").unlink(), "there is no teacher cache at"),
    "not JSON": (lambda root: (root / "zarr.json").write_text("{"), "is not JSON"),
    "foreign": (lambda root: rewritten(root, lambda a: a.pop("format")), "Zarr hierarchy of another program"),
    "future": (lambda root: rewritten(root, lambda a: a.update(format_version=9)), "has format version 9; .* Update"),
    "edited manifest": (lambda root: rewritten(root, lambda a: a["manifest"].update(tier="archive")), "by hand"),
    "edited axis": (
        lambda root: rewritten(root, lambda a: a["scenes"][1].update(name="scene-0009")),
        "the scene axis in .* was changed by hand: its sha256 is [0-9a-f]{64}, expected [0-9a-f]{64}",
    ),
}


@pytest.mark.parametrize("kind", BAD_GROUPS)
def test_a_group_that_cannot_be_trusted_is_refused_by_all(root: Path, kind: str) -> None:
    """Nothing is judged by a group that may be another's: above all, nothing is dropped."""
    found = verified(root)
    change, told = BAD_GROUPS[kind]
    change(root)
    before = sorted(path for path in root.rglob("*") if path.is_file())
    for action in (
        lambda: open_cache(root),
        lambda: verified(root),
        lambda: scenes_of(root),
        lambda: repair(root, found, lambda _: None),
    ):
        with pytest.raises(CacheError, match=told):
            action()
    assert sorted(path for path in root.rglob("*") if path.is_file()) == before


def test_another_programs_group_is_refused_by_all(tmp_path: Path) -> None:
    zarr.create_group(str(tmp_path / "theirs"), attributes={"made": "elsewhere"})
    found = Verification(tmp_path, (), {}, 0, 0)
    for action in (verified, lambda path: repair(path, found, lambda _: None)):
        with pytest.raises(CacheError, match="Zarr hierarchy of another program"):
            action(tmp_path / "theirs")


def test_a_cache_on_another_machine_is_refused() -> None:
    with pytest.raises(CacheError, match=r"verified and repaired in a local folder .* on the machine that holds it"):
        verified(Path("https://example.org/cache"))
