"""``view-cache`` on a small cache: every file it writes, and what it says about pictures that it cannot draw."""

import base64
import html.parser
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from train_world import FRAMES, SCENES, fill_cache, tiny_config, tiny_detector, tiny_manifest, tiny_tables

from cache.reading import Cache, open_cache
from cache.writing import SceneSlot, open_for_writing
from pipeline.dataset import DataChoice
from pipeline.pictures.animation import gif_frame, write_gif
from pipeline.pictures.drawable import drawable
from pipeline.pictures.options import PictureOptions
from pipeline.pictures.page import page_frame, write_page
from pipeline.pictures.spread import spread
from pipeline.recipes import demo
from pipeline.view_cache import view_cache
from scenes.scene_tables import SceneTables
from schemas.errors import CacheError, DataError, RecipeError
from schemas.features import FeatureSpec
from schemas.frame_index import frame_table
from schemas.manifest import Manifest

DRAWN = SCENES[1]
ONE_STILL = PictureOptions(stills=1)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> SceneTables:
    return tiny_tables(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def cache(tables: SceneTables, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return fill_cache(tmp_path_factory.mktemp("cache") / "cache", tables, scenes=SCENES[:2])


@pytest.fixture(scope="module")
def drawn(cache: Cache, tables: SceneTables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "pictures"
    view_cache(demo(), cache.path, choice_of(tables, DRAWN), folder, None, PictureOptions(stills=2))
    return folder


def choice_of(tables: SceneTables, *scenes: str) -> DataChoice:
    return DataChoice(tables.data_root, tables.version, None, scenes)


def manifest_with(tables: SceneTables, specs: tuple[FeatureSpec, ...]) -> Manifest:
    manifest = tiny_manifest(tiny_detector(tiny_config(rows=9, cols=8, dims=12)), tables, "int8")
    return manifest.model_copy(update={"features": specs})


def cache_with(path: Path, tables: SceneTables, specs: tuple[FeatureSpec, ...]) -> Cache:
    name = SCENES[0]
    slot = SceneSlot(name, tables.frames(name)[0].scene_token, FRAMES)
    writer = open_for_writing(path, manifest_with(tables, specs), [slot])
    rng = np.random.default_rng(0)
    with writer.scene(name) as scene:
        for _ in range(FRAMES):
            scene.append({spec.name: rng.random(spec.shape, dtype=np.float32) for spec in specs})
        scene.commit(frame_table(tables.frames(name)))
    return open_cache(path)


class Tags(html.parser.HTMLParser):
    """All elements of a page: (name, attributes)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_a_scene_asked_for_has_an_animation_a_page_and_stills(drawn: Path) -> None:
    name = DRAWN
    stills = {f"{name}-{step:03d}-{kind}.png" for step in (0, 3) for kind in ("boxes", "attention", "queries")}
    assert {path.name for path in drawn.iterdir()} == {f"{name}.gif", f"{name}.html", *stills}
    for still in stills:
        with Image.open(drawn / still) as image:
            image.load()
            assert min(image.size) > 500


def test_the_animation_has_every_frame_at_the_pace_of_the_keyframes(drawn: Path) -> None:
    with Image.open(drawn / f"{DRAWN}.gif") as image:
        assert image.n_frames == FRAMES  # type: ignore[attr-defined]
        assert image.info["duration"] == 500
        assert image.info["loop"] == 0
        shown = []
        for number in range(FRAMES):
            image.seek(number)
            shown.append(np.asarray(image.convert("RGB")))
    assert all((shown[0] != other).any() for other in shown[1:])


def test_the_page_holds_every_frame_and_asks_for_nothing_else(drawn: Path) -> None:
    text = (drawn / f"{DRAWN}.html").read_text(encoding="utf-8")
    found = Tags(text).found
    images = [attributes for tag, attributes in found if tag == "img"]
    assert [image["alt"] for image in images] == [f"frame {step} of {FRAMES}" for step in range(FRAMES)]
    sizes = set()
    for image in images:
        kind, data = str(image["src"]).split(",", 1)
        assert kind == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as jpeg:
            jpeg.load()
            sizes.add(jpeg.size)
    assert len(sizes) == 1
    fetching = [attributes for _, attributes in found if {"href", "srcset", "data", "action"} & attributes.keys()]
    assert not fetching
    assert not [attributes for tag, attributes in found if tag != "img" and "src" in attributes]
    assert not [tag for tag, _ in found if tag in {"link", "iframe", "object", "embed"}]
    without_images = re.sub(r'src="data:[^"]*"', "", text)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|fetch\(|import\(|XMLHttp", without_images)
    [policy] = [tag["content"] for _, tag in found if tag.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in str(policy)
    [slider] = [attributes for tag, attributes in found if attributes.get("type") == "range"]
    assert (slider["min"], slider["max"]) == ("0", str(FRAMES - 1))


def test_names_in_a_page_are_text_not_markup(tmp_path: Path) -> None:
    jpeg = page_frame(np.zeros((4, 6, 3), dtype=np.uint8))
    write_page(tmp_path / "p.html", ("<b>teacher</b> $name", 'a "line"'), [('"><script>', jpeg)], 0.5)
    text = (tmp_path / "p.html").read_text()
    assert "<b>" not in text
    assert "$name" in text
    assert [tag for tag, _ in Tags(text).found].count("script") == 1


def test_an_animation_is_as_wide_as_asked(tmp_path: Path) -> None:
    frames = [gif_frame(np.full((30, 40, 3), shade, dtype=np.uint8), 20) for shade in (10, 90, 200)]
    write_gif(tmp_path / "a.gif", frames, 0.1)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 3  # type: ignore[attr-defined]
        assert image.size == (20, 15)
        image.seek(2)
        assert np.asarray(image.convert("RGB"))[7, 10].tolist() == [200, 200, 200]


def test_a_scene_that_is_not_cached_is_refused(cache: Cache, tables: SceneTables, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"scene-0004.*--scenes scene-0004"):
        view_cache(demo(), cache.path, choice_of(tables, SCENES[2]), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_image_is_told_by_its_path(cache: Cache, tables: SceneTables, tmp_path: Path) -> None:
    shutil.copytree(tables.data_root, tmp_path / "nuscenes")
    torn = tables.frames(SCENES[0])[0].camera_paths[4]
    (tmp_path / "nuscenes" / torn).unlink()
    choice = DataChoice(tmp_path / "nuscenes", tables.version)
    with pytest.raises(DataError, match=f"{Path(torn).name} is missing"):
        view_cache(demo(), cache.path, choice, tmp_path / "pictures", None, ONE_STILL)


def test_a_cell_outside_the_grid_is_refused(cache: Cache, tables: SceneTables, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"\(9, 0\) is outside the BEV grid of 9 rows and 8 columns"):
        view_cache(demo(), cache.path, choice_of(tables), tmp_path, None, PictureOptions(cells=((0, 0), (9, 0))))


def test_a_cache_of_bev_only_says_what_the_other_pictures_need(
    tables: SceneTables, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    specs = tiny_detector(tiny_config(rows=9, cols=8, dims=12)).feature_specs()
    cache = cache_with(tmp_path / "cache", tables, specs[:1])
    view_cache(demo(), cache.path, choice_of(tables), tmp_path / "pictures", None, ONE_STILL)
    printed = capsys.readouterr().out
    assert "No picture of the teacher's boxes: the cache lacks query_logits and query_boxes" in printed
    assert "--arrays bev,query_logits,query_boxes" in printed
    assert "No picture of where temporal attention looks: the cache lacks temporal_offsets" in printed
    assert "No picture of query positions: the cache lacks query_positions" in printed
    name = SCENES[0]
    written = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert written == {f"{name}.gif", f"{name}.html", f"{name}-000-boxes.png"}


def test_a_teacher_with_other_features_still_has_pictures(
    tables: SceneTables, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    specs = (FeatureSpec(name="depth", dims=("camera", "bin"), shape=(6, 5), encoding="float16", description="Depth."),)
    cache = cache_with(tmp_path / "cache", tables, specs)
    view_cache(demo(), cache.path, choice_of(tables), tmp_path / "pictures", None, ONE_STILL)
    assert "No picture of the BEV feature as colours: the cache lacks bev" in capsys.readouterr().out
    assert (tmp_path / "pictures" / f"{SCENES[0]}-000-boxes.png").exists()


def test_arrays_of_other_dimensions_or_classes_are_told(tables: SceneTables) -> None:
    specs = tiny_detector(tiny_config(rows=9, cols=8, dims=12)).feature_specs()
    spoilt = {
        "bev": {"dims": ("x", "y", "channel")},
        "query_boxes": {"shape": (12, 9)},
        "temporal_weights": {"dims": ("y", "x", "head", "point", "source")},
    }
    changed = tuple(spec.model_copy(update=spoilt.get(spec.name, {})) for spec in specs)
    found = drawable(manifest_with(tables, changed))
    assert found.kinds == {"queries"}
    assert "bev has the dimensions x, y, channel, not y, x, channel" in found.reasons[0]
    assert "query_boxes has 9 numbers a box, not 10" in found.reasons[1]
    assert "temporal_weights has the dimensions" in found.reasons[2]
    strange = manifest_with(tables, specs).model_copy(update={"class_names": ("car", "dragon")})
    assert "dragon are no nuScenes detection classes" in drawable(strange).reasons[0]
    few = manifest_with(tables, specs).model_copy(update={"class_names": ("car",)})
    assert "query_logits has 10 classes, the manifest 1" in drawable(few).reasons[0]


def test_a_cache_without_scenes_has_a_summary_only(
    tables: SceneTables, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = fill_cache(tmp_path / "cache", tables, scenes=())
    view_cache(demo(), cache.path, choice_of(tables), tmp_path / "pictures")
    assert "holds no scene yet" in capsys.readouterr().out
    assert not (tmp_path / "pictures").exists()


def test_stills_are_spread_evenly() -> None:
    assert spread(20, 4) == (0, 6, 13, 19)
    assert spread(3, 4) == (0, 1, 2)
    assert spread(1, 4) == (0,)
    assert spread(9, 1) == (0,)
