"""The folder of input images."""

from __future__ import annotations

import io
import os
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
    assert ImageFolder(tmp_path).fill(open_image(image.described())).content() == image.content()


def test_a_missing_image_is_an_error(tmp_path: Path, image: InputImage) -> None:
    with pytest.raises(ConfigError, match="is missing"):
        ImageFolder(tmp_path).fill(open_image(image.described()))


def test_a_damaged_image_is_an_error(tmp_path: Path, image: InputImage) -> None:
    ImageFolder(tmp_path).keep(image).write_bytes(b"other")
    with pytest.raises(ConfigError, match="has changed"):
        ImageFolder(tmp_path).fill(open_image(image.described())).content()


def test_an_image_is_deleted_unless_it_was_needed_again(tmp_path: Path, image: InputImage) -> None:
    folder = ImageFolder(tmp_path)
    file = folder.keep(image)
    before = file.stat().st_mtime + 1
    os.utime(file, (before + 1, before + 1))
    folder.forget(image.sha256, before)
    assert folder.digests() == [image.sha256]
    folder.forget(image.sha256, before + 2)
    assert folder.digests() == []


def test_an_image_is_private(tmp_path: Path, image: InputImage) -> None:
    assert ImageFolder(tmp_path / "images").keep(image).stat().st_mode & 0o777 == 0o600
