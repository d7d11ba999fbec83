"""``verify`` names every damage by scene, array and step, and nothing that is sound."""

import json
import re
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from cache_fakes import SLOTS, SPECS, features_of, manifest_of, rows_of, token_of, write_cache, write_scene
from cache_faults import SMALL_SPECS, flipped
from cache_no_fsync import no_fsync

from cache import open_cache
from cache.damage import Damage
from cache.parquet_file import parquet_bytes, read_parquet
from cache.repair import repair
from cache.verify import Verification, scenes_of, verify
from cache.writing import SceneSlot, open_for_writing
from schemas.errors import CacheError
from schemas.features import FeatureSpec, Tier

__all__ = ["no_fsync"]

SHARD = Path("bev") / "c.1.0.0.0.0"
CHUNK = 4 * 5 * 6 + 4
RECEIPT = Path("receipts") / "scene-0002.parquet"
VALID = Path("valid") / "c.1.0"


def verified(root: Path) -> Verification:
    return verify(root, lambda _: None)


def summary(damages: tuple[Damage, ...]) -> list[tuple[object, ...]]:
    return [(damage.scene_name, damage.array_name, damage.step, damage.remedy) for damage in damages]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of which the first two scenes are made."""
    root = tmp_path_factory.mktemp("pristine") / "cache"
    write_cache(root, SLOTS[:2]).write_parameters({"weight": np.arange(100, dtype=np.float32)})
    return root


@pytest.fixture
def root(pristine: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(pristine, tmp_path / "cache"))


@pytest.mark.parametrize("tier", ["int8", "float16", "archive"])
def test_a_sound_cache_has_no_damage(tmp_path: Path, tier: Tier) -> None:
    write_cache(tmp_path, SLOTS[:2], tier)
    seen: list[str] = []
    found = verify(tmp_path, seen.append)
    assert found.damages == found.harmful == found.broken_scenes == ()
    assert tuple(seen) == scenes_of(tmp_path) == tuple(slot.name for slot in SLOTS)
    assert found.frames == 8
    assert found.checked_bytes == sum(path.stat().st_size for path in tmp_path.glob("[!v]*/c.*"))


def lengthened(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: 2 * CHUNK + 10])


@pytest.mark.parametrize(
    ("damage", "steps", "told"),
    [
        (lambda path: flipped(path, 3 * CHUNK + 17), [3], "expected crc32c [0-9a-f]{8} as in the receipt, found"),
        (lambda path: flipped(path, 3 * CHUNK - 2), [2], "expected the checksum [0-9a-f]{8} behind the frame, found"),
        (lambda path: flipped(path, 5 * CHUNK + 3), [None], "the index at the end of the file differs"),
        (lambda path: flipped(path, -1), [None], "the index at the end of the file differs from the receipt"),
        (Path.unlink, [None], "the file that the receipt names is missing"),
        (lengthened, [None], "expected 704 bytes as in the receipt, found 705"),
        (cut, [None, 2, 3, 4], "expected 704 bytes as in the receipt, found 258|the file ends before the frame does"),
    ],
)
def test_a_damaged_shard_is_named(
    root: Path, damage: Callable[[Path], None], steps: list[int | None], told: str
) -> None:
    damage(root / SHARD)
    found = verified(root)
    assert summary(found.damages) == [("scene-0002", "bev", step, "drop scene") for step in steps]
    for finding in found.damages:
        assert finding.path == root / SHARD
        assert re.search(told, finding.what)
    assert found.broken_scenes == ("scene-0002",)


def test_every_damage_is_told_not_only_the_first(root: Path) -> None:
    flipped(root / SHARD, 0)
    flipped(root / SHARD, 4 * CHUNK)
    (root / "query_boxes" / "c.1.0.0.0").unlink()
    flipped(root / "bev" / "c.0.0.0.0.0", 0)
    (root / "frames.parquet").write_bytes(b"")
    flipped(root / VALID, 0)
    assert summary(verified(root).damages) == [
        ("scene-0001", "bev", 0, "drop scene"),
        ("scene-0002", "bev", 0, "drop scene"),
        ("scene-0002", "bev", 4, "drop scene"),
        ("scene-0002", "query_boxes", None, "drop scene"),
        ("scene-0002", "valid", None, "rebuild"),
        (None, None, None, "rebuild"),
    ]


def test_a_shard_of_another_writing_is_told_from_a_flipped_bit(root: Path, tmp_path: Path) -> None:
    """Its own checksums are right, its size and index too: only the receipt can tell."""
    other = open_for_writing(tmp_path / "other", manifest_of(), SLOTS)
    write_scene(other, SLOTS[1], seed=5)
    shutil.copy(tmp_path / "other" / SHARD, root / SHARD)
    found = verified(root)
    assert summary(found.damages) == [("scene-0002", "bev", step, "drop scene") for step in range(5)]
    assert "the frame is whole, but of another scene or another writing" in found.damages[0].what


def test_a_stale_receipt_is_named(root: Path, tmp_path: Path) -> None:
    """A receipt of an older writing of the scene: sound in itself, and it fits the cache."""
    write_scene(open_for_writing(tmp_path / "other", manifest_of(), SLOTS), SLOTS[1], seed=5)
    shutil.copy(tmp_path / "other" / RECEIPT, root / RECEIPT)
    found = verified(root)
    assert {(damage.scene_name, damage.remedy) for damage in found.damages} == {("scene-0002", "drop scene")}
    assert {damage.array_name for damage in found.damages} == set(open_cache(root).arrays)


def test_a_receipt_of_another_cache_is_named(root: Path, tmp_path: Path) -> None:
    write_cache(tmp_path / "other", SLOTS[:2], tier="float16")
    shutil.copy(tmp_path / "other" / RECEIPT, root / RECEIPT)
    found = verified(root)
    assert summary(found.damages) == [("scene-0002", None, None, "drop scene")]
    assert "its receipt states fingerprint" in found.damages[0].what


def test_a_receipt_that_cannot_be_read_is_named(root: Path) -> None:
    (root / RECEIPT).write_bytes((root / RECEIPT).read_bytes()[:-100])
    found = verified(root)
    assert summary(found.damages) == [("scene-0002", None, None, "drop scene")]
    assert "its receipt cannot be read" in found.damages[0].what


@pytest.mark.parametrize(
    ("spec", "value", "told"),
    [
        (SPECS[0], -128, "holds the fill value -128, which is never a datum"),
        (SPECS[2], 255, "holds the fill value 255"),
        (SPECS[3], np.inf, "holds values that are NaN or infinite"),
        (SPECS[4], np.nan, "holds values that are NaN or infinite"),
    ],
)
def test_what_is_never_a_datum_is_named(tmp_path: Path, spec: FeatureSpec, value: float, told: str) -> None:
    """No writer of ours stores it; a faulty one of somebody's own, which quantises itself, might."""
    writer = open_for_writing(tmp_path, manifest_of((spec,), "archive"), SLOTS)
    with writer.scene("scene-0003") as scene:
        stored = {a.name: np.ones(a.shape, dtype=a.dtype) for a in spec.stored("archive")}
        stored[spec.name].flat[7] = value
        scene.append_stored(stored)
        scene.commit(rows_of(SLOTS[2]))
    found = verified(tmp_path)
    assert summary(found.damages) == [("scene-0003", spec.name, 0, "drop scene")]
    assert told in found.damages[0].what


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(bytes(9))])
def test_valid_is_compared_with_the_receipt(root: Path, damage: Callable[[Path], None]) -> None:
    damage(root / VALID)
    assert summary(verified(root).damages) == [("scene-0002", "valid", None, "rebuild")]


def test_remains_of_a_killed_writer_are_harmless(root: Path) -> None:
    (root / RECEIPT).unlink()
    found = verified(root)
    assert {(damage.scene_name, damage.remedy) for damage in found.damages} == {("scene-0002", "sweep")}
    assert {damage.array_name for damage in found.damages} == {*open_cache(root).arrays, "valid"}
    assert found.harmful == ()


def forged_index(root: Path, change: Callable[[pa.Table, dict[str, Any]], pa.Table]) -> None:
    table, facts = read_parquet(root / "frames.parquet")
    (root / "frames.parquet").write_bytes(parquet_bytes(change(table, facts), facts))


def test_the_frame_index_is_compared_with_the_receipts(root: Path) -> None:
    whole = (root / "frames.parquet").read_bytes()
    forged_index(root, lambda table, _: table.set_column(2, "sample_token", pa.array([f"x{n}" for n in range(8)])))
    found = verified(root)
    assert summary(found.damages) == [(None, None, None, "rebuild")]
    assert found.damages[0].what == "its rows of scene scene-0001 differ from the receipt's"
    (root / "frames.parquet").write_bytes(whole)
    forged_index(root, lambda table, _: table.slice(1))
    assert "it holds 7 rows, expected 8" in verified(root).damages[0].what
    forged_index(root, lambda table, facts: facts.update(fingerprint="x") or table)
    assert "it states fingerprint x, expected" in verified(root).damages[0].what


def test_a_frame_index_that_is_behind_is_no_damage(root: Path) -> None:
    """A writer killed between its receipt and the index leaves it so; readers take the receipts."""
    writer = open_for_writing(root, manifest_of(), SLOTS)
    behind = (root / "frames.parquet").read_bytes()
    write_scene(writer, SLOTS[2])
    (root / "frames.parquet").write_bytes(behind)
    assert verified(root).damages == ()
    (root / "frames.parquet").unlink()
    assert verified(root).damages == ()


def test_array_metadata_is_compared_with_the_groups(root: Path) -> None:
    document = json.loads((root / "bev" / "zarr.json").read_text())
    (root / "bev" / "zarr.json").write_text(json.dumps(document | {"fill_value": 0}))
    (root / "query_boxes" / "zarr.json").unlink()
    (root / "valid" / "zarr.json").write_text("{")
    assert sorted(summary(verified(root).damages)) == [
        (None, "bev", None, "rebuild"),
        (None, "query_boxes", None, "rebuild"),
        (None, "valid", None, "rebuild"),
    ]


def test_a_formula_edited_by_hand_is_named(root: Path) -> None:
    """Plain Zarr users dequantise by it; only a copy of the file can tell what it was."""
    document = json.loads((root / "zarr.json").read_text())
    document["consolidated_metadata"]["metadata"]["bev"]["attributes"]["dequantise"]["limit"] = 128
    (root / "zarr.json").write_text(json.dumps(document))
    own = (root / "bev" / "zarr.json").read_bytes()
    assert summary(verified(root).damages) == [(None, "bev", None, "restore")]
    assert len(repair(root, verified(root), lambda _: None).left) == 1
    assert (root / "bev" / "zarr.json").read_bytes() == own


def test_parameters_are_checked(root: Path) -> None:
    flipped(root / "teacher.safetensors", -1)
    found = verified(root)
    assert summary(found.damages) == [(None, None, None, "remove")]
    assert "does not have the sha256 it states" in found.damages[0].what


def test_fidelity_is_checked(root: Path) -> None:
    """Information for people, but not what it says it is."""
    (root / "fidelity.json").write_text("{")
    assert summary(verified(root).damages) == [(None, None, None, "remove")]
    assert [damage.path.name for damage in repair(root, verified(root), lambda _: None).mended] == ["fidelity.json"]
    assert verified(root).damages == ()


def test_foreign_files_are_told(root: Path) -> None:
    (root / "bev" / "notes.txt").write_text("mine")
    (root / "bev" / "c.7.0.0.0.0").write_text("no scene 7")
    (root / "receipts" / "list.txt").write_text("mine")
    (root / "receipts" / ".hidden").write_text("nobody's")
    found = verified(root)
    assert sorted(damage.path.name for damage in found.damages) == ["c.7.0.0.0.0", "list.txt", "notes.txt"]
    assert found.harmful == ()
    shutil.copy(root / RECEIPT, root / "receipts" / "scene-0007.parquet")
    assert [damage.what for damage in verified(root).harmful] == ["a receipt for a scene that has no place here"]


def test_one_frame_is_in_memory_at_a_time(tmp_path: Path) -> None:
    spec = FeatureSpec(name="bev", dims=("y", "x"), shape=(512, 512), encoding="float32", description="A megabyte.")
    slot = SceneSlot("scene-0001", "token-1", 8)
    writer = open_for_writing(tmp_path, manifest_of((spec,)), (slot,))
    write_scene(writer, slot)
    verified(tmp_path)
    tracemalloc.start()
    try:
        assert verified(tmp_path).damages == ()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.6e6


def test_the_ways_scenes_were_made_are_collected(tmp_path: Path) -> None:
    write_scene(open_for_writing(tmp_path, manifest_of(SMALL_SPECS), SLOTS, made_with={"device": "cpu"}), SLOTS[0])
    write_scene(open_for_writing(tmp_path, manifest_of(SMALL_SPECS), SLOTS), SLOTS[2])
    assert verified(tmp_path).made_with == {"scene-0001": {"device": "cpu"}, "scene-0003": {}}


def test_what_verify_calls_sound_the_reader_reads(root: Path) -> None:
    """And what it calls broken the reader refuses."""
    flipped(root / SHARD, 2 * CHUNK)
    broken = {(damage.scene_name, damage.step) for damage in verified(root).damages}
    cache = open_cache(root)
    for slot in SLOTS[:2]:
        for step in range(slot.length):
            if (slot.name, step) in broken:
                with pytest.raises(CacheError, match=f"scene {slot.name}, array bev, step {step}"):
                    cache.read(token_of(slot, step), "bev")
            else:
                exact = features_of(slot, step)["bev"]
                assert np.abs(cache.read(token_of(slot, step), "bev") - exact).max() < np.ptp(exact) / 250
