"""A cache holds one kind of feature: what is refused when it is made, opened and added to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zarr
from cache_fakes import SLOTS, SPECS, manifest_of, write_cache
from cache_no_fsync import no_fsync

from cache.reading import open_cache
from cache.writing import SceneSlot, open_for_writing
from schemas.errors import CacheError
from schemas.features import FeatureSpec
from schemas.manifest import Manifest

__all__ = ["no_fsync"]


def edited(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads((root / "zarr.json").read_text())
    change(document)
    (root / "zarr.json").write_text(json.dumps(document))


def replaced(**changes: Any) -> Manifest:
    values = json.loads(manifest_of().model_dump_json())
    for dotted, value in changes.items():
        node = values
        *parents, leaf = dotted.split("__")
        for parent in parents:
            node = node[parent]
        node[leaf] = value
    return Manifest.model_validate(values)


def test_the_manifest_comes_back(tmp_path: Path) -> None:
    write_cache(tmp_path, [])
    assert open_cache(tmp_path).manifest == manifest_of()


def test_program_and_device_may_change(tmp_path: Path) -> None:
    write_cache(tmp_path, [])
    open_for_writing(tmp_path, replaced(program_version="9", device="cuda"), SLOTS)
    assert open_cache(tmp_path).manifest.program_version == "0"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"teacher__weights_sha256": "ff"}, "teacher.weights_sha256: abab.* in the cache, ff now"),
        ({"teacher__architecture": '{"layers": 3}'}, "teacher.architecture.layers: 6 in the cache, 3 now"),
        ({"teacher__untrained": True}, "teacher.untrained: False in the cache, True now"),
        ({"dataset__tables_sha256": "2"}, "dataset.tables_sha256: 1111.* in the cache, 2 now"),
        ({"tier": "float16"}, "tier: int8 in the cache, float16 now"),
        ({"numerics": 2}, "numerics: 1 in the cache, 2 now"),
        ({"precision": "bfloat16"}, "precision: float32 in the cache, bfloat16 now"),
        ({"class_names": ["bus", "car"]}, r"class_names: \['car', 'bus'\] in the cache, \['bus', 'car'\] now"),
        ({"preprocessing__scale": 0.5}, "preprocessing.scale: 1.0 in the cache, 0.5 now"),
        ({"grid__rows": 5}, "grid.rows: 4 in the cache, 5 now"),
    ],
)
def test_every_hashed_field_is_compared(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    write_cache(tmp_path, [])
    with pytest.raises(CacheError, match=told) as caught:
        open_for_writing(tmp_path, replaced(**changes), SLOTS)
    assert f"make cache-teacher CACHE={tmp_path}-2. It holds no scene yet" in str(caught.value)


def test_a_cache_with_scenes_is_not_called_empty(tmp_path: Path) -> None:
    write_cache(tmp_path, SLOTS[:1])
    with pytest.raises(CacheError) as caught:
        open_for_writing(tmp_path, replaced(tier="float16"), SLOTS)
    assert str(caught.value).endswith(f"make cache-teacher CACHE={tmp_path}-2")


def test_all_differences_are_told_at_once(tmp_path: Path) -> None:
    write_cache(tmp_path, [])
    other = manifest_of((*SPECS[1:], SPECS[0].model_copy(update={"units": "m"})), tier="archive")
    with pytest.raises(CacheError) as caught:
        open_for_writing(tmp_path, other, SLOTS)
    assert "  features.bev.units: 1 in the cache, m now\n  tier: int8 in the cache, archive now\n" in str(caught.value)


def test_an_architecture_in_words_is_compared_too(tmp_path: Path) -> None:
    words = replaced(teacher__architecture="my own, version 1")
    open_for_writing(tmp_path, words, SLOTS)
    with pytest.raises(
        CacheError, match=r"teacher.architecture: my own, version 1 in the cache, my own, version 2 now"
    ):
        open_for_writing(tmp_path, replaced(teacher__architecture="my own, version 2"), SLOTS)


@pytest.mark.parametrize(
    ("slots", "told"),
    [
        (SLOTS[:2], "3 scenes in the cache, 2 now; they first differ at place 2: SceneSlot.*scene-0003.* None now"),
        ((SLOTS[1], SLOTS[0], SLOTS[2]), "they first differ at place 0"),
        ((*SLOTS[:2], SceneSlot("scene-0003", "t-3", 4)), "length=1.* in the cache, .*length=4.* now"),
    ],
)
def test_the_scene_axis_is_compared(tmp_path: Path, slots: tuple[SceneSlot, ...], told: str) -> None:
    write_cache(tmp_path, [])
    with pytest.raises(CacheError, match=told):
        open_for_writing(tmp_path, manifest_of(), slots)


def test_a_manifest_edited_by_hand_is_refused(tmp_path: Path) -> None:
    write_cache(tmp_path)
    edited(tmp_path, lambda d: d["attributes"]["manifest"]["teacher"].update(untrained=True))
    with pytest.raises(
        CacheError, match=r"was changed by hand: its fingerprint is [0-9a-f]{64}, expected [0-9a-f]{64}"
    ):
        open_cache(tmp_path)
    with pytest.raises(CacheError, match=r"was changed by hand"):
        open_for_writing(tmp_path, manifest_of(), SLOTS)


def test_array_metadata_edited_by_hand_is_refused(tmp_path: Path) -> None:
    write_cache(tmp_path)
    edited(tmp_path, lambda d: d["consolidated_metadata"]["metadata"]["bev"].update(data_type="uint8"))
    with pytest.raises(CacheError, match=r"metadata of array bev .* data_type is uint8, expected int8"):
        open_cache(tmp_path)


def test_a_lost_array_is_refused(tmp_path: Path) -> None:
    write_cache(tmp_path)
    edited(tmp_path, lambda d: d["consolidated_metadata"]["metadata"].pop("bev"))
    with pytest.raises(CacheError, match=r"metadata of array bev"):
        open_cache(tmp_path)


def test_a_format_from_the_future_is_refused(tmp_path: Path) -> None:
    write_cache(tmp_path)
    edited(tmp_path, lambda d: d["attributes"].update(format_version=2, manifest={"news": 1}))
    with pytest.raises(CacheError, match=r"has format version 2; this program reads version 1. Update the program"):
        open_cache(tmp_path)


@pytest.mark.parametrize("version", [0, None, "1"])
def test_no_format_version_is_refused(tmp_path: Path, version: object) -> None:
    write_cache(tmp_path)
    edited(tmp_path, lambda d: d["attributes"].update(format_version=version))
    with pytest.raises(CacheError, match=r"states format version .* expected 1"):
        open_cache(tmp_path)


def test_a_manifest_that_is_none_is_refused(tmp_path: Path) -> None:
    write_cache(tmp_path)
    edited(tmp_path, lambda d: d["attributes"].update(manifest={"teacher": 5}))
    with pytest.raises(CacheError, match=r"the manifest in .*zarr.json cannot be understood"):
        open_cache(tmp_path)


def test_another_programs_zarr_is_refused(tmp_path: Path) -> None:
    zarr.create_group(str(tmp_path / "theirs"), attributes={"made": "elsewhere"})
    with pytest.raises(CacheError, match=r"holds a Zarr hierarchy of another program .* found None"):
        open_cache(tmp_path / "theirs")
    with pytest.raises(CacheError, match=r"holds a Zarr hierarchy of another program"):
        open_for_writing(tmp_path / "theirs", manifest_of(), SLOTS)


def test_what_is_no_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CacheError, match=r"there is no teacher cache at .*absent: make one with make cache-teacher CACHE="
    ):
        open_cache(tmp_path / "absent")
    (tmp_path / "zarr.json").write_text("not JSON")
    with pytest.raises(CacheError, match=r"zarr.json is not JSON"):
        open_cache(tmp_path)
    (tmp_path / "zarr.json").write_text("[1, 2]")
    with pytest.raises(CacheError, match=r"another program"):
        open_cache(tmp_path)


def test_a_folder_with_something_in_it_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CacheError, match=r"is not a teacher cache and not empty \(it holds thesis.tex\)"):
        open_for_writing(tmp_path, manifest_of(), SLOTS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(CacheError, match=r"creating the cache failed: Not a directory"):
        open_for_writing(tmp_path / "cache", manifest_of(), SLOTS)


def test_a_creation_that_was_killed_is_taken_up(tmp_path: Path) -> None:
    write_cache(tmp_path, [])
    (tmp_path / "zarr.json").unlink()
    (tmp_path / "bev" / "zarr.json").unlink()
    other = manifest_of(SPECS[1:3])
    open_for_writing(tmp_path, other, SLOTS)
    assert open_cache(tmp_path).manifest == other
    assert not (tmp_path / "bev").exists()


def spec_of(name: str = "a", dims: tuple[str, ...] = ("y",), shape: tuple[int, ...] = (2,)) -> FeatureSpec:
    return FeatureSpec(name=name, dims=dims, shape=shape, encoding="float32", description="A feature.")


@pytest.mark.parametrize(
    ("specs", "slots", "told"),
    [
        ((), SLOTS, "at least one scene and one feature, got 3 scenes and 0 features"),
        (SPECS, (), "at least one scene and one feature, got 0 scenes"),
        (SPECS, (SLOTS[0], SLOTS[0]), "2 scenes of the cache are called 'scene-0001'"),
        ((spec_of(), spec_of()), SLOTS, "2 arrays of the cache are called 'a'"),
        ((spec_of("valid"),), SLOTS, "2 arrays of the cache are called 'valid'"),
        ((*SPECS, spec_of("bev_scale")), SLOTS, "2 arrays of the cache are called 'bev_scale'"),
        ((spec_of("../a"),), SLOTS, r"'../a' cannot name a scene or an array"),
        ((spec_of("receipts"),), SLOTS, "'receipts' cannot name a scene or an array"),
        (SPECS, (SceneSlot("a/b", "t", 1),), "'a/b' cannot name a scene or an array"),
        (SPECS, (SceneSlot("s", "t", 0),), "scene s has 0 frames, expected at least 1"),
        ((spec_of(dims=("step",)),), SLOTS, "names a dimension 'scene' or 'step'"),
        ((spec_of("a"), spec_of("b", shape=(3,))), SLOTS, "dimension y has size 3 in array b and 2 in another"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_anything_is_made(
    tmp_path: Path, specs: tuple[FeatureSpec, ...], slots: tuple[SceneSlot, ...], told: str
) -> None:
    with pytest.raises(CacheError, match=told):
        open_for_writing(tmp_path / "cache", manifest_of(specs), slots)
    assert not (tmp_path / "cache").exists()
