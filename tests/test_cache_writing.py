"""What a writer accepts, what it refuses, and what it leaves behind."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from cache_fakes import SLOTS, SPECS, features_of, manifest_of, rows_of, token_of, tolerance, write_cache, write_scene
from cache_no_fsync import no_fsync

from cache.quantise import encode
from cache.reading import open_cache
from cache.writing import SceneSlot, open_for_writing
from schemas.errors import CacheError
from schemas.features import Tier

__all__ = ["no_fsync"]

SLOT = SLOTS[0]


def files_of(root: Path) -> list[str]:
    """Everything a reader could see."""
    found = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
    return sorted(name for name in found if not name.startswith(".writers") and not name.endswith("zarr.json"))


@pytest.mark.parametrize("tier", ["int8", "float16", "archive"])
def test_what_is_written_is_read_back(tmp_path: Path, tier: Tier) -> None:
    writer = write_cache(tmp_path / "cache", tier=tier)
    assert writer.committed() == {slot.name for slot in SLOTS}
    cache = open_cache(tmp_path / "cache")
    for slot in SLOTS:
        for step in range(slot.length):
            for spec in SPECS:
                exact = features_of(slot, step)[spec.name]
                found = cache.read(token_of(slot, step), spec.name)
                assert found.dtype == np.float32
                assert np.abs(found - exact).max() <= tolerance(spec, exact, tier)


def test_appending_quantised_arrays_is_the_same(tmp_path: Path) -> None:
    """For a teacher stage that quantises on its device."""
    write_cache(tmp_path / "floats", [SLOT])
    writer = open_for_writing(tmp_path / "stored", manifest_of(), SLOTS)
    with writer.scene(SLOT.name) as scene:
        for step in range(SLOT.length):
            stored: dict[str, np.ndarray] = {}
            for spec in SPECS:
                stored |= encode(spec, features_of(SLOT, step)[spec.name], "int8")
            scene.append_stored(stored)
        scene.commit(rows_of(SLOT))
    for name in files_of(tmp_path / "floats"):
        assert (tmp_path / "floats" / name).read_bytes() == (tmp_path / "stored" / name).read_bytes(), name


def test_scenes_may_come_in_any_order_from_any_writer(tmp_path: Path) -> None:
    """Two runs that share the work leave the same bytes as one run, frame index included."""
    write_cache(tmp_path / "one")
    write_cache(tmp_path / "two", [SLOTS[2]])
    again = open_for_writing(tmp_path / "two", manifest_of(), SLOTS)
    write_scene(again, SLOTS[1])
    write_scene(again, SLOTS[0])
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    for name in files_of(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_leaving_without_commit_leaves_nothing(tmp_path: Path) -> None:
    writer = open_for_writing(tmp_path, manifest_of(), SLOTS)
    with writer.scene(SLOT.name) as scene:
        scene.append(features_of(SLOT, 0))
    assert files_of(tmp_path) == []
    assert list((tmp_path / ".writers" / "partial").iterdir()) == []
    assert writer.committed() == frozenset()


def test_an_interrupted_scene_leaves_nothing(tmp_path: Path) -> None:
    writer = open_for_writing(tmp_path, manifest_of(), SLOTS)

    def interrupted() -> None:
        with writer.scene(SLOT.name) as scene:
            scene.append(features_of(SLOT, 0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert files_of(tmp_path) == []
    assert list((tmp_path / ".writers" / "partial").iterdir()) == []


def test_a_feature_that_is_not_finite_fails_the_scene_by_name(tmp_path: Path) -> None:
    writer = open_for_writing(tmp_path, manifest_of(), SLOTS)
    with writer.scene(SLOT.name) as scene:
        scene.append(features_of(SLOT, 0))
        bad = features_of(SLOT, 1)
        bad["bev"][2, 3, 4] = np.nan
        place = (
            "scene scene-0001, step 1: bev holds 1 values that are NaN or infinite, the first at y 2, x 3, channel 4"
        )
        with pytest.raises(CacheError, match=place):
            scene.append(bad)
        with pytest.raises(CacheError, match=r"this writer has failed or has committed; begin the scene again"):
            scene.append(features_of(SLOT, 1))
        with pytest.raises(CacheError, match=r"this writer has failed or has committed; begin the scene again"):
            scene.commit(rows_of(SLOT))
    assert files_of(tmp_path) == []


def test_features_are_checked_against_the_manifest(tmp_path: Path) -> None:
    writer = open_for_writing(tmp_path, manifest_of(), SLOTS)
    with writer.scene(SLOT.name) as scene:
        wrong = features_of(SLOT, 0)
        wrong["depth"] = wrong.pop("bev")
        with pytest.raises(CacheError, match=r"step 0: missing features \['bev'\], unknown features \['depth'\]"):
            scene.append(wrong)
        wrong = features_of(SLOT, 0) | {"bev": np.zeros((5, 4, 6))}
        with pytest.raises(CacheError, match=r"scene-0001, step 0: bev has shape \(5, 4, 6\), expected \(4, 5, 6\)"):
            scene.append(wrong)


def test_stored_arrays_are_checked_against_the_manifest(tmp_path: Path) -> None:
    specs = (SPECS[2],)
    writer = open_for_writing(tmp_path, manifest_of(specs), SLOTS)
    with writer.scene(SLOT.name) as scene:
        with pytest.raises(CacheError, match=r"missing arrays \['temporal_weights'\]"):
            scene.append_stored({})
        with pytest.raises(CacheError, match=r"temporal_weights is float32 \(4, 5, 2\), expected uint8 \(4, 5, 2\)"):
            scene.append_stored({"temporal_weights": np.zeros((4, 5, 2), dtype=np.float32)})


def test_more_frames_than_the_scene_has_are_refused(tmp_path: Path) -> None:
    writer = open_for_writing(tmp_path, manifest_of(), SLOTS)
    with writer.scene(SLOT.name) as scene:
        for step in range(SLOT.length):
            scene.append(features_of(SLOT, step))
        with pytest.raises(CacheError, match=r"scene-0001, step 3: the scene has only 3 keyframes"):
            scene.append(features_of(SLOT, 0))
        assert scene.commit(rows_of(SLOT))  # the scene itself is whole


def test_a_scene_is_committed_whole_or_not_at_all(tmp_path: Path) -> None:
    writer = open_for_writing(tmp_path, manifest_of(), SLOTS)
    with writer.scene(SLOT.name) as scene:
        scene.append(features_of(SLOT, 0))
        with pytest.raises(CacheError, match=r"scene-0001 cannot be committed: 1 frames were appended, expected 3"):
            scene.commit(rows_of(SLOT))
    assert files_of(tmp_path) == []


def test_the_rows_must_be_those_of_the_scene(tmp_path: Path) -> None:
    writer = open_for_writing(tmp_path, manifest_of(), SLOTS)
    rows = rows_of(SLOT)
    twice = rows.set_column(2, rows.schema.field(2), [["a", "b", "a"]])
    wrong = {
        "it has 2 frame rows, expected 3, one per keyframe": rows_of(SLOT, 2),
        "frame rows state scene_name 'scene-0002', expected 'scene-0001'": rows_of(SceneSlot("scene-0002", "x", 3)),
        "frame rows state scene_token 'x', expected 'token-1'": rows_of(SceneSlot("scene-0001", "x", 3)),
        r"frame rows have the steps \[2, 1, 0\], expected 0 to 2 in order": rows.take([2, 1, 0]),
        r"frame rows have the columns .* expected FRAME_SCHEMA": rows.drop_columns(["step"]),
        "frame rows name a sample_token twice": twice,
    }
    with writer.scene(SLOT.name) as scene:
        for step in range(SLOT.length):
            scene.append(features_of(SLOT, step))
        for message, table in wrong.items():
            with pytest.raises(CacheError, match=message):
                scene.commit(table)
        assert scene.commit(rows)
        with pytest.raises(CacheError, match=r"this writer has failed or has committed"):
            scene.commit(rows)


def test_receipts_record_how_a_scene_was_made(tmp_path: Path) -> None:
    """Recorded, never compared: scenes of one cache may come from several machines."""
    write_scene(open_for_writing(tmp_path, manifest_of(), SLOTS, made_with={"device": "cpu", "threads": "1"}), SLOT)
    write_scene(open_for_writing(tmp_path, manifest_of(), SLOTS, made_with={"device": "cuda"}), SLOTS[1])
    write_scene(open_for_writing(tmp_path, manifest_of(), SLOTS), SLOTS[2])
    cache = open_cache(tmp_path)
    assert [cache.made_with(slot.name) for slot in SLOTS] == [{"device": "cpu", "threads": "1"}, {"device": "cuda"}, {}]


def test_no_clock_time_is_stored_or_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines whose clocks differ by decades make identical files, and trust each other's."""
    write_cache(tmp_path / "now")
    monkeypatch.setattr(time, "time", lambda: 86_400.0)
    monkeypatch.setattr(time, "time_ns", lambda: 86_400 * 10**9)
    write_cache(tmp_path / "then", SLOTS[:2])
    for number, path in enumerate(sorted((tmp_path / "then").rglob("*"))):
        year = (1971, 2120)[number % 2]
        os.utime(path, (year * 31_557_600 - 62_167_219_200 + number,) * 2)
    writer = open_for_writing(tmp_path / "then", manifest_of(), SLOTS)
    assert writer.committed() == {slot.name for slot in SLOTS[:2]}
    write_scene(writer, SLOTS[2])
    assert files_of(tmp_path / "now") == files_of(tmp_path / "then")
    for name in [*files_of(tmp_path / "now"), "zarr.json"]:
        assert (tmp_path / "now" / name).read_bytes() == (tmp_path / "then" / name).read_bytes(), name
    assert open_cache(tmp_path / "then").scene_names == tuple(slot.name for slot in SLOTS)


def test_a_scene_must_have_a_place(tmp_path: Path) -> None:
    writer = write_cache(tmp_path, [SLOT])
    with pytest.raises(CacheError, match=r"scene-9 has no place in the cache .* for the 3 scenes of split mini_train"):
        writer.scene("scene-9")


def test_a_finished_scene_is_never_rewritten(tmp_path: Path) -> None:
    writer = write_cache(tmp_path, [SLOT])
    assert not write_scene(writer, SLOT, seed=9)
    found = open_cache(tmp_path).read(token_of(SLOT, 0), "query_boxes")
    assert (found == features_of(SLOT, 0)["query_boxes"]).all()


def test_the_first_of_two_writers_of_a_scene_wins(tmp_path: Path) -> None:
    writer = open_for_writing(tmp_path, manifest_of(), SLOTS)
    other = open_for_writing(tmp_path, manifest_of(), SLOTS)
    with writer.scene(SLOT.name) as late, other.scene(SLOT.name) as early:
        for step in range(SLOT.length):
            late.append(features_of(SLOT, step, seed=1))
            early.append(features_of(SLOT, step, seed=2))
        assert early.commit(rows_of(SLOT))
        before = {name: (tmp_path / name).read_bytes() for name in files_of(tmp_path)}
        assert not late.commit(rows_of(SLOT))
    assert {name: (tmp_path / name).read_bytes() for name in files_of(tmp_path)} == before
    found = open_cache(tmp_path).read(token_of(SLOT, 2), "query_boxes")
    assert (found == features_of(SLOT, 2, seed=2)["query_boxes"]).all()
    assert list((tmp_path / ".writers" / "partial").iterdir()) == []


def test_a_live_writer_is_not_swept(tmp_path: Path) -> None:
    writer = open_for_writing(tmp_path, manifest_of(), SLOTS)
    dead = tmp_path / ".writers" / "partial" / "scene-0002.dead"
    with writer.scene(SLOT.name) as scene:
        dead.mkdir()
        (dead / "bev").write_bytes(b"half a shard")
        open_for_writing(tmp_path, manifest_of(), SLOTS)
        assert not dead.exists()
        for step in range(SLOT.length):
            scene.append(features_of(SLOT, step))
        assert scene.commit(rows_of(SLOT))
    assert open_cache(tmp_path).scene_names == (SLOT.name,)


def test_a_copy_without_its_empty_folders_is_filled_up(tmp_path: Path) -> None:
    """Version control and object stores keep no empty folder."""
    write_cache(tmp_path, [])
    shutil.rmtree(tmp_path / ".writers")
    (tmp_path / "receipts").rmdir()
    write_cache(tmp_path, [SLOT])
    assert open_cache(tmp_path).scene_names == (SLOT.name,)
