"""Two caches compared: exact numbers on differences that were put there."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from cache_fakes import SLOTS, SPECS, Features, features_of, manifest_of, rows_of, write_cache

from cache.reading import Cache, open_cache
from cache.writing import SceneSlot, open_for_writing
from pipeline.cache_comparison import Comparison, at_coarser_grid, common_scenes, compare_caches
from pipeline.dataset import DataChoice
from pipeline.pictures.difference import difference_map
from pipeline.pictures.options import PictureOptions
from pipeline.recipes import demo
from pipeline.view_cache import view_cache
from schemas.bev_grid import BevGrid
from schemas.errors import CacheError
from schemas.manifest import Manifest

Change = Callable[[str, int, Features], None]


def unchanged(name: str, step: int, features: Features) -> None:
    """Leave a frame as it is."""


def other_cache(
    path: Path, change: Change = unchanged, manifest: Manifest | None = None, slots: Sequence[SceneSlot] = SLOTS
) -> Cache:
    manifest = manifest or manifest_of()
    writer = open_for_writing(path, manifest, SLOTS)
    for slot in slots:
        with writer.scene(slot.name) as scene:
            for step in range(slot.length):
                features = features_of(slot, step, SPECS)
                change(slot.name, step, features)
                scene.append({spec.name: features[spec.name] for spec in manifest.features})
            scene.commit(rows_of(slot))
    return open_cache(path)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    path = tmp_path_factory.mktemp("ours") / "cache"
    write_cache(path)
    return open_cache(path)


def compare(ours: Cache, theirs: Cache, *asked: str) -> Comparison:
    return compare_caches(ours, theirs, common_scenes(ours, theirs, asked), lambda: None, narrowed=bool(asked))


def view(ours: Cache, theirs: Cache, out: Path, capsys: pytest.CaptureFixture[str], *scenes: str) -> str:
    """What ``view-cache --against`` prints, whitespace collapsed; it is given no data set."""
    view_cache(demo(), ours.path, DataChoice(scenes=scenes), out, theirs.path, PictureOptions(stills=2))
    return " ".join(capsys.readouterr().out.split())


def test_the_same_numbers_are_identical(ours: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = other_cache(tmp_path / "cache")
    found = compare(ours, theirs)
    assert found.identical
    assert {feature.name: feature.same == feature.values > 0 for feature in found.features} == {
        spec.name: True for spec in SPECS
    }
    assert all(feature.error.centred_error == 0 and feature.error.largest_error == 0 for feature in found.features)
    assert "identical: " in view(ours, theirs, tmp_path / "pictures", capsys)
    assert not (tmp_path / "pictures").exists()


def test_one_changed_value_is_counted_and_located(
    ours: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(name: str, step: int, features: Features) -> None:
        if (name, step) == ("scene-0002", 3):
            features["query_boxes"][4, 2] += 0.5

    theirs = other_cache(tmp_path / "cache", change)
    found = compare(ours, theirs)
    assert not found.identical
    assert found.other_bytes == ("scene-0002",)
    differing = {feature.name: feature for feature in found.features if feature.same != feature.values}
    assert set(differing) == {"query_boxes"}
    boxes = differing["query_boxes"]
    assert (boxes.frames, boxes.values - boxes.same, boxes.values) == (9, 1, 9 * 70)
    assert boxes.error.largest_error == pytest.approx(0.5, rel=1e-6)
    printed = view(ours, theirs, tmp_path / "pictures", capsys)
    assert "identical" not in printed
    assert "The manifests agree in every field" in printed
    assert "Stored values differ in 1 of 3 common scenes: scene-0002" in printed
    assert "9 common frames" in printed
    assert "99.8413%" in printed


def test_errors_are_what_the_formulas_say(ours: Cache, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)

    def change(name: str, step: int, features: Features) -> None:
        features["bev"] += 0.1 * rng.standard_normal(features["bev"].shape, dtype=np.float32)

    theirs = other_cache(tmp_path / "cache", change)
    bev = next(feature for feature in compare(ours, theirs).features if feature.name == "bev")
    tokens = ours.frames["sample_token"].to_pylist()
    left, right = (np.stack([cache.read(token, "bev") for token in tokens]).astype(float) for cache in (ours, theirs))
    mean = right.mean(axis=(1, 2), keepdims=True)
    error = np.linalg.norm(left - right) / np.linalg.norm(right - mean)
    cosine = np.vdot(left - mean, right - mean) / np.linalg.norm(left - mean) / np.linalg.norm(right - mean)
    assert bev.error.centred_error == pytest.approx(error, rel=1e-9)
    assert bev.error.cosine == pytest.approx(cosine, rel=1e-9)
    assert bev.error.largest_error == pytest.approx(np.abs(left - right).max(), rel=1e-9)
    assert 0.01 < error < 0.1


def test_manifests_are_compared_field_by_field(ours: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = manifest_of(tier="float16")
    teacher = manifest.teacher.model_copy(update={"architecture": '{"layers": 3}'})
    theirs = other_cache(tmp_path / "cache", manifest=manifest.model_copy(update={"teacher": teacher}))
    found = compare(ours, theirs)
    assert found.manifest == (("teacher.architecture.layers", 6, 3), ("tier", "int8", "float16"))
    bev = next(feature for feature in found.features if feature.name == "bev")
    assert bev.values == 0, "stored in other forms: there is no share of same values"
    assert bev.error.centred_error is not None
    assert 0 < bev.error.centred_error < 0.01
    printed = view(ours, theirs, tmp_path / "pictures", capsys)
    assert "teacher.architecture.layers │ 6 │ 3" in printed
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        f"scene-0001-{step:03d}-difference.png" for step in (0, 2)
    }


def test_scenes_of_one_cache_only_are_named(ours: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = other_cache(tmp_path / "cache", slots=SLOTS[1:])
    found = compare(ours, theirs)
    assert (found.only_ours, found.only_theirs, found.scenes) == (("scene-0001",), (), ("scene-0002", "scene-0003"))
    assert not found.identical
    assert "1 scenes only in this cache: scene-0001" in view(ours, theirs, tmp_path / "pictures", capsys)
    assert compare(theirs, ours).only_theirs == ("scene-0001",)
    assert compare(ours, theirs, "scene-0003").identical, "what was not asked for does not count"
    with pytest.raises(CacheError, match="scene-0001"):
        compare(ours, theirs, "scene-0001")


def test_caches_without_a_common_scene(ours: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = other_cache(tmp_path / "cache", slots=())
    assert "no scene in common" in view(ours, theirs, tmp_path / "pictures", capsys)


def test_a_finer_map_is_compared_as_averages(ours: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fine = manifest_of()
    bev = SPECS[0].model_copy(update={"shape": (8, 10, 6)})
    fine = fine.model_copy(
        update={"features": (bev, *SPECS[3:]), "grid": BevGrid(rows=8, cols=10, extent_m=fine.grid.extent_m)}
    )

    def refine(name: str, step: int, features: Features) -> None:
        features["bev"] = features["bev"].repeat(2, axis=0).repeat(2, axis=1)

    theirs = other_cache(tmp_path / "cache", refine, fine)
    found = compare(ours, theirs)
    assert [feature.name for feature in found.features] == ["bev at 4 × 5", "query_features", "query_boxes"]
    assert found.features[0].error.largest_error < 1e-5
    assert found.features[0].values == 0
    assert "bev is 4 × 5 × 6 in this cache and 8 × 10 × 6 in the other" in found.incomparable[0]
    assert "temporal_offsets is only in this cache" in found.incomparable
    printed = view(ours, theirs, tmp_path / "pictures", capsys)
    assert "compared as averages over the coarser grid's cells" in printed
    assert "grid.rows │ 4 │ 8" in printed
    assert (tmp_path / "pictures" / "scene-0001-000-difference.png").exists()


def test_maps_that_do_not_fit_each_other_are_told(ours: Cache, tmp_path: Path) -> None:
    odd = manifest_of().model_copy(update={"features": (SPECS[0].model_copy(update={"shape": (6, 5, 6)}), SPECS[4])})

    def stretch(name: str, step: int, features: Features) -> None:
        features["bev"] = np.resize(features["bev"], (6, 5, 6))

    found = compare(ours, other_cache(tmp_path / "cache", stretch, odd))
    assert [feature.name for feature in found.features] == ["query_boxes"]
    assert found.incomparable[0].endswith("6 × 5 × 6 in the other: not compared")


def test_averages_over_cells_whichever_is_the_finer() -> None:
    fine = np.arange(4 * 6 * 2, dtype=np.float32).reshape(4, 6, 2)
    coarse = np.zeros((2, 2, 2), dtype=np.float32)
    expected = np.stack([fine[:2, :3], fine[:2, 3:], fine[2:, :3], fine[2:, 3:]]).mean(axis=(1, 2)).reshape(2, 2, 2)
    np.testing.assert_allclose(at_coarser_grid(fine, coarse)[0], expected)
    np.testing.assert_allclose(at_coarser_grid(coarse, fine)[1], expected)


def test_the_difference_map_is_the_length_over_the_channels() -> None:
    ours, theirs = np.zeros((2, 3, 2), dtype=np.float32), np.zeros((2, 3, 2), dtype=np.float32)
    ours[1, 2] = (3.0, -4.0)
    expected = np.zeros((2, 3))
    expected[1, 2] = 5.0
    assert np.array_equal(difference_map(ours, theirs), expected)
