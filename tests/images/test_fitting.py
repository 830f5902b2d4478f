"""Fitting of images to a video's size."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hunyuan_local.images import fit_image, nearest_size

SIZES = ((1280, 720), (720, 1280), (960, 960), (1104, 832), (832, 1104))


def halves(size: tuple[int, int]) -> Image.Image:
    """An image whose left third is red, middle green, right blue."""
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    third = size[0] // 3
    for channel in range(3):
        pixels[:, channel * third : (channel + 1) * third, channel] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize("how", ["cover", "pad", "stretch"])
def test_the_result_has_exactly_the_size(how: str) -> None:
    assert fit_image(halves((99, 31)), (64, 48), how).size == (64, 48)


def test_cover_keeps_the_centre() -> None:
    fitted = np.asarray(fit_image(halves((300, 100)), (100, 100), "cover"))
    assert fitted[:, 5:-5].reshape(-1, 3).mean(axis=0).round().tolist() == [0, 255, 0]


def test_pad_keeps_everything_and_adds_black() -> None:
    fitted = np.asarray(fit_image(halves((300, 100)), (90, 90), "pad"))
    assert fitted[0].max() == 0 and fitted[45, 10].argmax() == 0 and fitted[45, 80].argmax() == 2


def test_stretch_keeps_everything() -> None:
    fitted = np.asarray(fit_image(halves((300, 100)), (90, 90), "stretch"))
    assert [fitted[45, x].argmax() for x in (10, 45, 80)] == [0, 1, 2]


@pytest.mark.parametrize("how", ["cover", "pad", "stretch"])
def test_an_image_of_the_size_stays_as_it_is(how: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    assert np.array_equal(np.asarray(fit_image(noise, (64, 48), how)), np.asarray(noise))


def test_a_long_strip_is_fitted_without_being_scaled_as_a_whole() -> None:
    assert fit_image(Image.new("RGB", (500_000, 16)), (1280, 720), "cover").size == (1280, 720)


@pytest.mark.parametrize(
    ("image", "size"),
    [((4000, 3000), (1104, 832)), ((1080, 1920), (720, 1280)), ((500, 500), (960, 960)), ((3000, 1000), (1280, 720))],
)
def test_the_nearest_size_has_the_nearest_shape(image: tuple[int, int], size: tuple[int, int]) -> None:
    assert nearest_size(image, SIZES) == size
