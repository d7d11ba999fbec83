"""The teacher's boxes from the cached arrays, and where boxes, queries and colours are drawn."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection
from train_fakes import boxes_of
from train_world import CPU, SCENES, tiny_config, tiny_detector, tiny_manifest, tiny_tables

from cache.reading import Cache, open_cache
from cache.writing import SceneSlot, open_for_writing
from detectors.bevformer import BEVFormer
from detectors.inputs import batch_of
from detectors.teacher_features import cacheable
from pipeline.pictures.bev_colors import fit_colors
from pipeline.pictures.box_drawing import ANNOTATED, DETECTED, draw_in_camera, draw_on_map, legend_handles
from pipeline.pictures.canvas import Canvas
from pipeline.pictures.frame_contents import SceneContents, on_map, teacher_boxes
from pipeline.pictures.map_axes import draw_map
from pipeline.pictures.query_drawing import draw_queries, score_colors
from scenes.images import load_inputs
from scenes.scene_tables import SceneTables
from schemas.boxes import CLASS_NAMES, Boxes, box_corners_m
from schemas.frame_index import frame_table

NAME = SCENES[0]


@dataclass(frozen=True)
class Cached:
    """A cache of two scenes by a real, tiny teacher, and what the teacher decodes itself."""

    cache: Cache
    tables: SceneTables
    teacher: BEVFormer
    detections: tuple[Boxes, ...]


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Cached:
    folder = tmp_path_factory.mktemp("boxes")
    tables = tiny_tables(folder)
    teacher = tiny_detector(tiny_config(rows=9, cols=8)).eval()
    slots = [SceneSlot(NAME, tables.frames(NAME)[0].scene_token, tables.scene_length(NAME))]
    writer = open_for_writing(folder / "cache", tiny_manifest(teacher, tables, "int8"), slots)
    found: list[Boxes] = []
    state = None
    with torch.inference_mode(), writer.scene(NAME) as scene:
        for frame in tables.frames(NAME):
            batch = batch_of([load_inputs(frame, tables.data_root, teacher.config.preprocessing)]).to(CPU)
            features, state = teacher.features(batch, state)
            found += teacher.decode(features)
            scene.append({name: value.numpy() for name, value in cacheable(features, 0).items()})
        scene.commit(frame_table(tables.frames(NAME)))
    return Cached(open_cache(folder / "cache"), tables, teacher, tuple(found))


def test_decoding_the_cache_gives_what_the_teacher_decodes(cached: Cached) -> None:
    for frame, expected in zip(cached.tables.frames(NAME), cached.detections, strict=True):
        found = teacher_boxes(cached.cache, frame.sample_token, 0.0)
        assert len(found) > 0
        assert len(found) == len(expected)
        assert found.scores is not None
        assert expected.scores is not None
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
        # float16 logits may swap neighbours of nearly one score, so boxes are compared as sets
        order, other = (np.lexsort(boxes.center_m.T) for boxes in (found, expected))
        np.testing.assert_allclose(found.center_m[order], expected.center_m[other], atol=1e-5)


def test_only_boxes_above_the_threshold_are_kept_best_first(cached: Cached) -> None:
    token = cached.tables.frames(NAME)[1].sample_token
    every = teacher_boxes(cached.cache, token, 0.0).scores
    assert every is not None
    threshold = float(np.median(every))
    kept = teacher_boxes(cached.cache, token, threshold).scores
    assert kept is not None
    assert 0 < len(kept) < len(every)
    assert kept.tolist() == [score for score in every if score >= threshold]


def test_labels_follow_the_caches_own_class_order(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    token = cached.tables.frames(NAME)[0].sample_token
    plain = teacher_boxes(cached.cache, token, 0.0)
    turned = cached.cache.manifest.model_copy(update={"class_names": CLASS_NAMES[::-1]})
    monkeypatch.setattr(cached.cache, "manifest", turned)
    assert np.array_equal(teacher_boxes(cached.cache, token, 0.0).labels, len(CLASS_NAMES) - 1 - plain.labels)


def test_boxes_stand_on_the_map_where_they_are() -> None:
    boxes = boxes_of([[3.0, 4.0, 0.0, 2.0, 4.0, 1.5, 0.3, 0.0, 0.0], [-5.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]])
    axes = Canvas(4.0, 4.0).axes(0.5, 0.5, 3.0, 3.0)
    draw_on_map(axes, boxes, DETECTED)
    _, over = [artist for artist in axes.collections if isinstance(artist, LineCollection)]
    corners = box_corners_m(boxes)[:, :4, :2]
    for box, drawn in enumerate(over.get_segments()[:2]):
        np.testing.assert_allclose(drawn, [*corners[box], corners[box][0]])
    nose = over.get_segments()[2]
    ahead = corners[0, :2].mean(axis=0) - boxes.center_m[0, :2]
    np.testing.assert_allclose(nose[0], boxes.center_m[0, :2] + ahead)
    assert np.dot(nose[1] - nose[0], ahead) > 0


def test_boxes_stand_in_the_image_that_sees_them(cached: Cached) -> None:
    frame = cached.tables.frames(NAME)[0]
    ahead = boxes_of([[0.0, 15.0, 0.0, 2.0, 4.0, 1.5, 0.0, 0.0, 0.0]])
    behind = boxes_of([[0.0, -15.0, 0.0, 2.0, 4.0, 1.5, 0.0, 0.0, 0.0]])
    for boxes, edges in ((ahead, 12), (behind, 0)):
        axes = Canvas(4.0, 4.0).axes(0.5, 0.5, 3.0, 3.0)
        axes.set(xlim=(0, 32), ylim=(18, 0))
        draw_in_camera(axes, boxes, frame.image_from_lidar[0], ANNOTATED)
        drawn = axes.collections[-1]
        assert isinstance(drawn, LineCollection)
        assert len(drawn.get_segments()) == edges
    center = frame.image_from_lidar[0] @ [0.0, 15.0, 0.0, 1.0]
    axes = Canvas(4.0, 4.0).axes(0.5, 0.5, 3.0, 3.0)
    axes.set(xlim=(0, 32), ylim=(18, 0))
    draw_in_camera(axes, ahead, frame.image_from_lidar[0], ANNOTATED)
    segments = np.concatenate(axes.collections[-1].get_segments())  # type: ignore[attr-defined]
    assert (segments.min(axis=0) < center[:2] / center[2]).all()
    assert (segments.max(axis=0) > center[:2] / center[2]).all()


def test_the_legend_tells_both_styles_with_their_counts(cached: Cached) -> None:
    contents = SceneContents(cached.cache, cached.tables.frames(NAME), 0.01).read(0)
    assert contents.annotated is not None
    assert contents.detected is not None
    labels = [handle.get_label() for handle in legend_handles(contents, 0.01)]
    assert labels == [f"annotated ({len(contents.annotated)})", f"teacher, score ≥ 0.01 ({len(contents.detected)})"]
    assert DETECTED.color != ANNOTATED.color


def test_annotations_off_the_map_are_left_out(cached: Cached) -> None:
    grid = cached.cache.manifest.grid
    boxes = boxes_of([[51.0, -51.0, 0.0, *[1.0] * 6], [51.3, 0.0, 0.0, *[1.0] * 6], [0.0, -60.0, 0.0, *[1.0] * 6]])
    assert on_map(boxes, grid).center_m[:, 0].tolist() == [51.0]


def test_queries_are_drawn_from_start_to_end_in_the_colour_of_their_score(cached: Cached) -> None:
    scene = SceneContents(cached.cache, cached.tables.frames(NAME), 0.3)
    token = scene.frames[2].sample_token
    contents = scene.read(2)
    colors = score_colors(scene.top_score())
    axes = Canvas(4.0, 4.0).axes(0.5, 0.5, 3.0, 3.0)
    draw_queries(axes, contents, scene.grid, colors, large=True)
    start, end = (artist for artist in axes.collections if isinstance(artist, PathCollection))
    positions = cached.cache.read(token, "query_positions")[:, :, :2] * 102.4 - 51.2
    scores = 1 / (1 + np.exp(-cached.cache.read(token, "query_logits").max(axis=1)))
    order = scores.argsort(kind="stable")
    np.testing.assert_allclose(np.asarray(start.get_offsets()), positions[0, order], atol=1e-3)
    np.testing.assert_allclose(np.asarray(end.get_offsets()), positions[-1, order], atol=1e-3)
    np.testing.assert_allclose(end.get_facecolor(), colors.to_rgba(scores[order]), atol=1e-6)
    assert scene.top_score() >= scores.max()
    assert colors.norm.vmax == max(0.1, np.ceil(10 * scene.top_score()) / 10)


def test_a_map_is_drawn_forward_up(cached: Cached) -> None:
    grid = cached.cache.manifest.grid
    rgb = np.zeros((*grid.shape, 3))
    rgb[-1, 0] = (1.0, 0.0, 0.0)  # ahead on the left
    canvas = Canvas(3.0, 3.0)
    draw_map(canvas.axes(0.0, 0.0, 3.0, 3.0), rgb, grid)
    pixels = canvas.pixels(50.0)
    assert pixels[5, 5].tolist() == [255, 0, 0]
    assert pixels[-6, 5].tolist() == [0, 0, 0]


def test_one_feature_has_one_colour_in_every_frame_of_a_scene(cached: Cached) -> None:
    scene = SceneContents(cached.cache, cached.tables.frames(NAME), 0.3)
    maps = [cached.cache.read(frame.sample_token, "bev") for frame in scene.frames]
    basis = fit_colors(maps)
    for step, bev in enumerate(maps):
        rgb = scene.read(step).bev_rgb
        assert rgb is not None
        np.testing.assert_allclose(rgb, basis.rgb(bev), atol=1e-12)
    mixed = np.concatenate([maps[0][:4], maps[3][4:]])
    np.testing.assert_allclose(basis.rgb(mixed)[:4], basis.rgb(maps[0])[:4])
    np.testing.assert_allclose(basis.rgb(mixed)[4:], basis.rgb(maps[3])[4:])


def test_the_main_directions_are_found_whatever_else_there_is() -> None:
    rng = np.random.default_rng(0)
    planted = rng.normal(size=(30, 40, 3)) * [9.0, 5.0, 3.0]
    directions = np.linalg.qr(rng.normal(size=(16, 16)))[0][:3]
    bev = (planted @ directions + 0.05 * rng.normal(size=(30, 40, 16)) + 100).astype(np.float32)
    basis = fit_colors([bev])
    np.testing.assert_allclose(np.abs(directions @ basis.directions), np.eye(3), atol=0.1)
    rgb = basis.rgb(bev)
    assert rgb.min() == 0.0
    assert rgb.max() == 1.0
    for channel in range(3):
        assert abs(np.corrcoef(rgb[..., channel].ravel(), planted[..., channel].ravel())[0, 1]) > 0.97


@pytest.mark.parametrize("channels", [1, 2])
def test_features_of_few_channels_or_of_one_value_have_colours_too(channels: int) -> None:
    bev = np.ones((3, 4, channels), dtype=np.float32)
    assert np.isfinite(fit_colors([bev]).rgb(bev)).all()
    assert fit_colors([bev]).rgb(bev).shape == (3, 4, 3)


def test_a_png_is_written_with_its_folder(tmp_path: Path) -> None:
    Canvas(2.0, 1.0).save(tmp_path / "new" / "picture.png", 50.0)
    assert (tmp_path / "new" / "picture.png").read_bytes().startswith(b"\x89PNG")
