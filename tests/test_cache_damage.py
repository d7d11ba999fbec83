"""Damage is named by scene, array and step, before anybody learns from it."""

import pickle
from pathlib import Path

import pyarrow as pa
import pytest
from cache_fakes import (
    SLOTS,
    features_of,
    manifest_of,
    token_of,
    write_cache,
    write_scene,
)
from cache_no_fsync import no_fsync

from cache import open_cache
from cache.damage import DamageError
from cache.parquet_file import parquet_bytes, read_parquet
from cache.writing import open_for_writing
from schemas.errors import CacheError

__all__ = ["no_fsync"]

BEV = Path("bev") / "c.1.0.0.0.0"
BEV_BYTES = 4 * 5 * 6


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A cache of which the first two scenes are made."""
    write_cache(tmp_path / "cache", SLOTS[:2])
    return tmp_path / "cache"


def flipped(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_the_error_can_be_told_again_and_crosses_processes(root: Path) -> None:
    flipped(root / BEV, 3 * (BEV_BYTES + 4) + 17)
    with pytest.raises(DamageError) as caught:
        open_cache(root).read(token_of(SLOTS[1], 3), "bev")
    carried = pickle.loads(pickle.dumps(caught.value))
    assert (str(carried), carried.what) == (str(caught.value), caught.value.what)
    assert "expected crc32c" in carried.what
    assert str(type(carried)(f"stopped at step 4: {carried}")).startswith("stopped at step 4: the cache is damaged")


def test_a_flipped_bit_is_named_by_scene_array_and_step(root: Path) -> None:
    flipped(root / BEV, 3 * (BEV_BYTES + 4) + 17)
    cache = open_cache(root)
    slot = SLOTS[1]
    told = (
        r"damaged: scene scene-0002, array bev, step 3: expected crc32c [0-9a-f]{8} as in the receipt, found .*c\.1\.0"
    )
    with pytest.raises(CacheError, match=told):
        cache.read(token_of(slot, 3), "bev")
    with pytest.raises(
        CacheError, match=r"make repair-cache CACHE=.*cache, then repeat the make cache-teacher command"
    ):
        cache.shard(slot.name, "bev").read(3)
    cache.read(token_of(slot, 2), "bev")
    cache.read(token_of(slot, 3), "query_boxes")


def test_a_swapped_shard_is_detected(root: Path, tmp_path: Path) -> None:
    """Its own checksums are right: only the receipt can tell."""
    other = open_for_writing(tmp_path / "other", manifest_of(), SLOTS)
    write_scene(other, SLOTS[1], seed=5)
    (root / BEV).write_bytes((tmp_path / "other" / BEV).read_bytes())
    with pytest.raises(CacheError, match=r"scene scene-0002, array bev, step 0: expected crc32c"):
        open_cache(root).read(token_of(SLOTS[1], 0), "bev")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: path.unlink(), "array bev: the file that the receipt names is missing"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-1]),
            "array bev: expected 704 bytes as in the receipt, found 703",
        ),
        (lambda path: path.write_bytes(b""), "array bev: expected 704 bytes as in the receipt, found 0"),
        (lambda path: flipped(path, -9), "array bev: the index at the end of the file differs from the receipt"),
    ],
)
def test_a_damaged_file_is_named_before_any_frame_is_read(root: Path, damage: object, told: str) -> None:
    assert callable(damage)
    damage(root / BEV)
    cache = open_cache(root)
    with pytest.raises(CacheError, match=f"the cache is damaged: scene scene-0002, {told}"):
        cache.shard("scene-0002", "bev")
    cache.shard("scene-0001", "bev")


def test_a_file_truncated_while_it_is_used_is_detected(root: Path) -> None:
    shard = open_cache(root).shard("scene-0002", "bev")
    shard.path.write_bytes(shard.path.read_bytes()[:200])
    shard.read(0)
    with pytest.raises(CacheError, match=r"scene scene-0002, array bev, step 1: the file ends before the frame does"):
        shard.read(1)


def test_a_receipt_that_cannot_be_read_is_named(root: Path) -> None:
    cache = open_cache(root)
    flipped(root / "receipts" / "scene-0002.parquet", 30)
    with pytest.raises(CacheError, match=r"scene scene-0002, its receipt cannot be read"):
        cache.shard("scene-0002", "bev")
    (root / "receipts" / "scene-0002.parquet").unlink()
    with pytest.raises(CacheError, match=r"scene-0002 is no longer in the cache: its receipt .* is gone"):
        cache.shard("scene-0002", "bev")


def test_a_receipt_of_another_cache_is_refused(root: Path, tmp_path: Path) -> None:
    write_cache(tmp_path / "other", SLOTS[:2], tier="float16")
    receipt = Path("receipts") / "scene-0002.parquet"
    (root / receipt).write_bytes((tmp_path / "other" / receipt).read_bytes())
    with pytest.raises(
        CacheError, match=r"scene scene-0002, its receipt states fingerprint [0-9a-f]+, expected [0-9a-f]+"
    ):
        open_cache(root).shard("scene-0002", "bev_scale")


def test_a_receipt_of_another_scene_is_refused(root: Path) -> None:
    receipts = root / "receipts"
    (receipts / "scene-0002.parquet").write_bytes((receipts / "scene-0001.parquet").read_bytes())
    with pytest.raises(
        CacheError, match=r"scene scene-0002, its receipt states scene_name scene-0001, expected scene-0002"
    ):
        open_cache(root).shard("scene-0002", "bev")


def test_a_receipt_without_a_place_is_refused(root: Path) -> None:
    receipts = root / "receipts"
    (receipts / "scene-0007.parquet").write_bytes((receipts / "scene-0001.parquet").read_bytes())
    (receipts / ".hidden.parquet").write_bytes(b"of some other program")
    with pytest.raises(
        CacheError,
        match=r"its receipts, scene-0007.parquet is a receipt for a scene that has no place here .* make repair-cache",
    ):
        open_cache(root)


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("bev/nbytes", 119, "array bev: frames of 119 bytes, expected 120"),
        ("bev/offset", 7, "array bev: the frames it states do not follow each other and fill the file"),
        ("step", 7, "its frame rows have the steps"),
    ],
)
def test_a_receipt_that_contradicts_itself_is_refused(root: Path, column: str, value: int, told: str) -> None:
    path = root / "receipts" / "scene-0002.parquet"
    table, facts = read_parquet(path)
    field = table.schema.field(column)
    values = pa.array([value] * table.num_rows, field.type)
    forged = table.set_column(table.schema.get_field_index(column), field, values)
    path.write_bytes(parquet_bytes(forged, facts))
    with pytest.raises(CacheError, match=f"scene scene-0002, its receipt cannot be right: {told}"):
        open_cache(root).shard("scene-0002", "bev")


def test_a_receipt_that_lacks_an_array_is_refused(root: Path) -> None:
    path = root / "receipts" / "scene-0002.parquet"
    table, facts = read_parquet(path)
    facts["files"] = facts["files"][1:]
    path.write_bytes(parquet_bytes(table, facts))
    with pytest.raises(
        CacheError, match=r"its receipt cannot be right: it names the arrays \['bev_offset'.* expected \['bev',"
    ):
        open_cache(root).shard("scene-0002", "bev")


def test_a_removed_receipt_lets_the_scene_be_made_again(root: Path) -> None:
    flipped(root / BEV, 0)
    (root / "receipts" / "scene-0002.parquet").unlink()
    writer = open_for_writing(root, manifest_of(), SLOTS)
    assert writer.committed() == {"scene-0001"}
    assert write_scene(writer, SLOTS[1])
    found = open_cache(root).read(token_of(SLOTS[1], 4), "query_boxes")
    assert (found == features_of(SLOTS[1], 4)["query_boxes"]).all()
