"""The teacher's parameters beside the arrays: written, read back, refused."""

from pathlib import Path

import numpy as np
import pytest
from cache_fakes import SLOTS, write_cache
from cache_no_fsync import no_fsync

from cache.reading import open_cache
from schemas.errors import CacheError

__all__ = ["no_fsync"]

SLOT = SLOTS[0]


def test_parameters_come_back(tmp_path: Path) -> None:
    writer = write_cache(tmp_path, [SLOT])
    named = {
        "head.query_embedding.weight": np.arange(12, dtype=np.float32).reshape(3, 4).T,
        "half": np.ones(3, dtype=np.float16),
        "count": np.array(7, dtype=np.int64),
    }
    writer.write_parameters(named)
    found = open_cache(tmp_path).parameters()
    assert found.keys() == named.keys()
    for name, array in named.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_parameters_are_written_to_the_same_bytes_every_time(tmp_path: Path) -> None:
    """safetensors alone would write the facts in another order, from one process to the next and within one."""
    writer = write_cache(tmp_path, [])
    contents = set()
    for _ in range(20):
        writer.write_parameters({"ü": np.arange(3, dtype=np.float16), "b.weight": np.ones((2, 3), dtype=np.float32)})
        contents.add((tmp_path / "teacher.safetensors").read_bytes())
    assert len(contents) == 1
    assert sorted(open_cache(tmp_path).parameters()) == ["b.weight", "ü"]


def test_parameters_are_refused_when_absent_damaged_or_foreign(tmp_path: Path) -> None:
    writer = write_cache(tmp_path / "a", [SLOT])
    cache = open_cache(tmp_path / "a")
    path = tmp_path / "a" / "teacher.safetensors"
    with pytest.raises(CacheError, match=r"teacher\.safetensors is missing: this cache holds no teacher parameters"):
        cache.parameters()
    writer.write_parameters({"weight": np.zeros(100, dtype=np.float32)})
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"\x01")
    with pytest.raises(
        CacheError, match=r"is damaged: the teacher's parameters, the content does not have the sha256 it states"
    ):
        cache.parameters()
    path.write_bytes(whole[:50])
    with pytest.raises(CacheError, match=r"cannot be read: .* make repair-cache CACHE="):
        cache.parameters()
    path.write_bytes(whole)
    write_cache(tmp_path / "b", [SLOT], tier="float16")
    (tmp_path / "b" / "teacher.safetensors").write_bytes(whole)
    with pytest.raises(CacheError, match=r"of another cache: expected fingerprint"):
        open_cache(tmp_path / "b").parameters()
