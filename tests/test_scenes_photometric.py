"""Photometric distortion: the published steps in their order, drawn as often and as far as published."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_nuscenes import SIZE_WH, make_nuscenes
from numpy.typing import NDArray
from pydantic import ValidationError

from scenes.images import load_image, load_inputs
from scenes.photometric import PhotometricDistortion, PhotometricOptions, distorted, draw_distortion
from scenes.tables import load_tables
from schemas.frames import CAMERAS
from schemas.preprocessing import Preprocessing

PIXELS = np.random.default_rng(0).integers(0, 256, (70, 40, 3), dtype=np.uint8)
PIXELS[:8, :8] = 0
PIXELS[8:16, :8] = 255
PIXELS[16:24, :8] = 128  # grey has no hue

factors = st.floats(0.5, 1.5)
distortions = st.builds(
    PhotometricDistortion,
    brightness=st.floats(-32, 32),
    contrast=factors,
    contrast_first=st.booleans(),
    saturation=factors,
    hue_deg=st.floats(-18, 18),
    channels=st.permutations((0, 1, 2)).map(tuple),
)


def published(rgb: NDArray[np.uint8], drawn: PhotometricDistortion) -> NDArray[np.float32]:
    """The released steps, one after the other over the whole float image in BGR; returned as RGB."""
    image = rgb[..., ::-1].astype(np.float32) + np.float32(drawn.brightness)
    if drawn.contrast_first:
        image = image * np.float32(drawn.contrast)
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    hsv[..., 1] *= drawn.saturation
    hsv[..., 0] += drawn.hue_deg
    hsv[..., 0][hsv[..., 0] > 360] -= 360
    hsv[..., 0][hsv[..., 0] < 0] += 360
    image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if not drawn.contrast_first:
        image = image * np.float32(drawn.contrast)
    return image[..., list(drawn.channels)][..., ::-1]


@settings(max_examples=60)
@given(distortions)
def test_an_image_becomes_what_the_published_steps_make_of_it(drawn: PhotometricDistortion) -> None:
    before = PIXELS.copy()
    found = distorted(PIXELS, drawn)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, published(PIXELS, drawn), rtol=0, atol=1e-3)
    np.testing.assert_array_equal(PIXELS, before)


@pytest.mark.parametrize("brightness", [0.0, 20.0])
def test_the_round_trip_that_is_left_out_changes_nothing(brightness: float) -> None:
    drawn = PhotometricDistortion(brightness=brightness, channels=(2, 0, 1))
    np.testing.assert_allclose(distorted(PIXELS, drawn), published(PIXELS, drawn), rtol=0, atol=1e-3)


def test_nothing_is_clipped() -> None:
    assert distorted(PIXELS, PhotometricDistortion(brightness=-32.0)).min() < 0
    assert distorted(PIXELS, PhotometricDistortion(contrast=1.5)).max() > 255
    assert distorted(PIXELS, PhotometricDistortion(saturation=1.5)).min() < 0


def test_doing_nothing_is_exact() -> None:
    np.testing.assert_array_equal(distorted(PIXELS, PhotometricDistortion()), PIXELS)


def test_draws_are_as_frequent_and_as_wide_as_published() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_distortion(PhotometricOptions(), rng) for _ in range(4000)]
    for name, neutral, least, largest in (
        ("brightness", 0.0, -32, 32),
        ("contrast", 1.0, 0.5, 1.5),
        ("saturation", 1.0, 0.5, 1.5),
        ("hue_deg", 0.0, -18, 18),
    ):
        values = np.array([getattr(one, name) for one in drawn if getattr(one, name) != neutral])
        assert 0.46 < len(values) / len(drawn) < 0.54, name
        assert least <= values.min() < least + 0.05 * (largest - least), name
        assert largest >= values.max() > largest - 0.05 * (largest - least), name
        assert abs(values.mean() - (least + largest) / 2) < 0.05 * (largest - least), name
    exchanged = [one.channels for one in drawn if one.channels != (0, 1, 2)]
    assert 0.38 < len(exchanged) / len(drawn) < 0.45  # half of them, of which a sixth is the order that was
    assert len(set(exchanged)) == 5
    assert 0.46 < np.mean([one.contrast_first for one in drawn]) < 0.54


def test_a_draw_takes_the_same_numbers_whatever_it_decides() -> None:
    never, always = np.random.default_rng(3), np.random.default_rng(3)
    draw_distortion(PhotometricOptions(probability=0), never)
    draw_distortion(PhotometricOptions(probability=1), always)
    assert never.random() == always.random()


def test_probability_zero_distorts_nothing() -> None:
    rng = np.random.default_rng(1)
    drawn = [draw_distortion(PhotometricOptions(probability=0), rng) for _ in range(20)]
    assert {(one.brightness, one.contrast, one.saturation, one.hue_deg, one.channels) for one in drawn} == {
        (0.0, 1.0, 1.0, 0.0, (0, 1, 2))
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"contrast": (1.5, 0.5)}, "contrast must be two factors above 0 in ascending order, got 1.5 and 0.5"),
        ({"saturation": (0, 1)}, "saturation must be two factors above 0"),
        ({"probability": 1.5}, "less than or equal to 1"),
        ({"brightness": -1}, "greater than or equal to 0"),
        ({"hue_deg": 400}, "less than or equal to 180"),
    ],
)
def test_options_that_make_no_sense_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PhotometricOptions.model_validate(values)


@pytest.fixture(scope="module")
def made_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nuscenes(("scene-0003",), frames=1).write(tmp_path_factory.mktemp("made"))


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("color_order", ["rgb", "bgr"])
def test_each_camera_is_distorted_before_it_is_normalised(made_root: Path, color_order: str, scale: float) -> None:
    preprocessing = Preprocessing.model_validate(
        {"color_order": color_order, "mean": (120.0, 110.0, 100.0), "std": (58.0, 1.0, 57.0), "scale": scale}
    )
    frame = load_tables(made_root, "v1.0-trainval").frames("scene-0003")[0]
    rng = np.random.default_rng(5)
    drawn = [draw_distortion(PhotometricOptions(probability=1), rng) for _ in CAMERAS]
    inputs = load_inputs(frame, made_root, preprocessing, drawn)
    size = int(scale * SIZE_WH[0]), int(scale * SIZE_WH[1])
    for path, image, one in zip(frame.camera_paths, inputs.images, drawn, strict=True):
        pixels = published(load_image(made_root, path, SIZE_WH), one)
        ordered = pixels if color_order == "rgb" else pixels[..., ::-1]
        normal = ((ordered - np.float32(preprocessing.mean)) / np.float32(preprocessing.std)).astype(np.float32)
        expected = cv2.resize(normal, size, interpolation=cv2.INTER_LINEAR) if scale != 1 else normal
        np.testing.assert_allclose(image[:, : size[1], : size[0]], expected.transpose(2, 0, 1), rtol=0, atol=1e-3)
        assert not image[:, size[1] :].any()


def test_undistorted_floats_are_the_undistorted_image(made_root: Path) -> None:
    preprocessing = Preprocessing(color_order="bgr", mean=(103.53, 116.28, 123.675), std=(58.395, 57.12, 57.375))
    frame = load_tables(made_root, "v1.0-trainval").frames("scene-0003")[0]
    for scale in (1.0, 0.8):
        scaled = preprocessing.model_copy(update={"scale": scale})
        plain = load_inputs(frame, made_root, scaled)
        same = load_inputs(frame, made_root, scaled, [PhotometricDistortion()] * 6)
        np.testing.assert_array_equal(plain.images, same.images)
