"""Decoding and the published preprocessing, and images that are not what the tables say."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_nuscenes import SIZE_WH, make_nuscenes
from numpy.typing import NDArray
from PIL import Image, ImageFile

from scenes.confined_paths import confined_path
from scenes.images import _normalisation, load_image, load_inputs
from scenes.tables import load_tables
from schemas.errors import DataError
from schemas.frames import CAMERAS, Frame
from schemas.preprocessing import Preprocessing

SCENE = "scene-0003"
CAFFE = Preprocessing(color_order="bgr", mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0))
TORCH = Preprocessing(color_order="rgb", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))


@pytest.fixture(scope="module")
def made_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nuscenes((SCENE,), frames=1).write(tmp_path_factory.mktemp("made"))


@pytest.fixture
def frame(made_root: Path) -> Frame:
    return load_tables(made_root, "v1.0-trainval").frames(SCENE)[0]


def published(path: Path, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """The published pipeline step by step: OpenCV decode, normalise as float, resize, pad, channels first."""
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR).astype(np.float32)
    if preprocessing.color_order == "rgb":
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    mean, std = np.float64([preprocessing.mean]), np.float64([preprocessing.std])
    pixels = cv2.multiply(cv2.subtract(pixels, mean), 1 / std)
    height, width = pixels.shape[:2]
    size = (int(width * preprocessing.scale), int(height * preprocessing.scale))
    if preprocessing.scale != 1:
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
    padded = np.zeros((*preprocessing.padded_hw(height, width), 3), dtype=np.float32)
    padded[: size[1], : size[0]] = pixels
    return padded.transpose(2, 0, 1)


@pytest.mark.parametrize("pad_multiple", [32, 24])
@pytest.mark.parametrize("scale", [1.0, 0.8, 0.5])
@pytest.mark.parametrize("preprocessing", [CAFFE, TORCH])
def test_inputs_equal_the_published_pipeline(
    made_root: Path, frame: Frame, preprocessing: Preprocessing, scale: float, pad_multiple: int
) -> None:
    preprocessing = preprocessing.model_copy(update={"scale": scale, "pad_multiple": pad_multiple})
    inputs = load_inputs(frame, made_root, preprocessing)
    assert inputs.frame is frame
    assert inputs.images.dtype == np.float32
    assert inputs.images.shape == (6, 3, *preprocessing.padded_hw(SIZE_WH[1], SIZE_WH[0]))
    for path, image in zip(frame.camera_paths, inputs.images, strict=True):
        np.testing.assert_array_equal(image, published(made_root / path, preprocessing))


@given(st.tuples(*[st.floats(0, 255)] * 3), st.tuples(*[st.floats(0.1, 100)] * 3))
def test_any_normalisation_equals_opencv(mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
    values = np.arange(256, dtype=np.float32)[:, None, None].repeat(3, axis=2)
    expected = cv2.multiply(cv2.subtract(values, np.float64([mean])), 1 / np.float64([std]))
    np.testing.assert_array_equal(_normalisation(mean, std), expected[:, 0].T)


def test_the_projection_follows_the_resize(made_root: Path, frame: Frame) -> None:
    inputs = load_inputs(frame, made_root, TORCH.model_copy(update={"scale": 0.5}))
    np.testing.assert_allclose(inputs.image_from_lidar[:, :2], 0.5 * frame.image_from_lidar[:, :2])
    np.testing.assert_array_equal(inputs.image_from_lidar[:, 2:], frame.image_from_lidar[:, 2:])


def test_many_threads_give_the_same_images(made_root: Path, frame: Frame) -> None:
    expected = load_inputs(frame, made_root, TORCH).images
    with ThreadPoolExecutor(8) as pool:
        for inputs in pool.map(lambda _: load_inputs(frame, made_root, TORCH), range(24)):
            np.testing.assert_array_equal(inputs.images, expected)


def damaged(frame: Frame, made_root: Path, tmp_path: Path, damage: str) -> Path:
    """A copy of the frame's images with one of them damaged."""
    for path in frame.camera_paths:
        target = tmp_path / path
        target.parent.mkdir(parents=True)
        target.write_bytes((made_root / path).read_bytes())
    victim = tmp_path / frame.camera_paths[2]
    if damage == "missing":
        victim.unlink()
    elif damage == "truncated":
        victim.write_bytes(victim.read_bytes()[:-200])
    elif damage == "size":
        Image.new("RGB", (64, 36)).save(victim)
    elif damage == "grey":
        Image.new("L", SIZE_WH).save(victim)
    elif damage == "text":
        victim.write_text("not an image")
    elif damage == "empty":
        victim.write_bytes(b"")
    else:
        victim.unlink()
        victim.mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("missing", "is missing"),
        ("folder", "is missing"),
        ("truncated", "expected a whole image, but decoding failed: .*truncated"),
        ("size", "expected an RGB image of 32x18 pixels .*got mode RGB of 64x36"),
        ("grey", "expected an RGB image of 32x18 pixels .*got mode L of 32x18"),
        ("text", "expected a whole image, but decoding failed: cannot identify"),
        ("empty", "expected a whole image, but decoding failed: cannot identify"),
    ],
)
def test_a_bad_image_is_refused_with_sample_camera_and_file(
    made_root: Path, frame: Frame, tmp_path: Path, damage: str, reason: str
) -> None:
    data_root = damaged(frame, made_root, tmp_path, damage)
    with pytest.raises(DataError, match=reason) as caught:
        load_inputs(frame, data_root, TORCH)
    for part in (frame.sample_token, SCENE, CAMERAS[2], frame.camera_paths[2], "Restore the file"):
        assert part in str(caught.value)


@given(kept=st.integers(1, 10_000))
def test_no_part_of_an_image_passes_as_the_whole(made_root: Path, kept: int) -> None:
    path = made_root / "samples" / "CAM_BACK" / f"{SCENE}_sample_0_CAM_BACK.jpg"
    whole = path.read_bytes()
    part = path.with_name("part.jpg")
    part.write_bytes(whole[: kept % len(whole)])
    with pytest.raises(DataError, match="expected a whole image, but decoding failed"):
        load_image(made_root, str(part.relative_to(made_root)), SIZE_WH)


def test_pil_set_to_pass_truncated_images_is_refused(
    made_root: Path, frame: Frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(RuntimeError, match="half an image would pass as a whole one"):
        load_inputs(frame, made_root, TORCH)


def test_cameras_of_different_sizes_are_refused(made_root: Path, frame: Frame) -> None:
    sizes = frame.camera_size_wh.copy()
    sizes[3] = (64, 36)
    with pytest.raises(DataError, match=r"one image size, got \[\(32, 18\), \(64, 36\)\]"):
        load_inputs(dataclasses.replace(frame, camera_size_wh=sizes), made_root, TORCH)


def test_no_image_is_read_from_outside_the_data_root(made_root: Path) -> None:
    with pytest.raises(DataError, match=r"the path '/etc/passwd' leaves the data directory"):
        load_image(made_root, "/etc/passwd", SIZE_WH)


@pytest.mark.parametrize(
    "path", ["", ".", "/a.jpg", "../a.jpg", "a/../../b.jpg", "a/..", "C:/a.jpg", "a\\..\\b", "a\0b"]
)
def test_paths_that_leave_the_data_root_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(DataError, match=r"leaves the data directory .*expected a relative path without"):
        confined_path(tmp_path, path)


def test_symbolic_links_to_another_disk_are_followed(made_root: Path, frame: Frame, tmp_path: Path) -> None:
    (tmp_path / "samples").symlink_to(made_root / "samples")
    assert load_inputs(frame, tmp_path, TORCH).images.shape == (6, 3, 32, 32)
