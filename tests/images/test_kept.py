"""The folder of input images."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from hunyuan_local.errors import ConfigError
from hunyuan_local.images import ImageFolder, InputImage, check_image, open_image


@pytest.fixture
def image() -> InputImage:
    content = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(content, format="PNG")
    return check_image(content.getvalue())


def test_a_kept_image_is_found_by_its_description(tmp_path: Path, image: InputImage) -> None:
    ImageFolder(tmp_path).keep(image)
    assert ImageFolder(tmp_path).fill(open_image(image.described())).data == image.data


def test_a_missing_image_is_an_error(tmp_path: Path, image: InputImage) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        ImageFolder(tmp_path).fill(open_image(image.described()))


def test_a_damaged_image_is_an_error(tmp_path: Path, image: InputImage) -> None:
    ImageFolder(tmp_path).keep(image).write_bytes(b"other")
    with pytest.raises(ConfigError, match="damaged"):
        ImageFolder(tmp_path).fill(open_image(image.described()))


def test_only_wanted_images_stay(tmp_path: Path, image: InputImage) -> None:
    folder = ImageFolder(tmp_path)
    folder.keep(image)
    folder.keep_only([image.sha256])
    kept = folder.fill(open_image(image.described()))
    folder.keep_only([])
    assert kept.data == image.data and not list(tmp_path.iterdir())
