"""The image of a request."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from hunyuan_local import GenerationRequest
from hunyuan_local.errors import InvalidRequestError
from hunyuan_local.json_text import from_json_text, json_text


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    Image.new("RGB", (64, 48), "red").save(path)
    return path


def test_a_path_becomes_a_checked_image(file: Path) -> None:
    assert GenerationRequest(prompt="a cat", image=file).image.size == (64, 48)


def test_the_same_file_gives_an_equal_request(file: Path) -> None:
    assert GenerationRequest(prompt="a cat", image=str(file)) == GenerationRequest(
        prompt="a cat", image=file.read_bytes()
    )


def test_a_copy_keeps_the_pixels(file: Path) -> None:
    request = GenerationRequest(prompt="a cat", image=file).replace(seed=1)
    assert request.image.pixels().size == (64, 48)


def test_json_holds_the_description_alone(file: Path) -> None:
    request = GenerationRequest(prompt="a cat", image=file)
    read = from_json_text(GenerationRequest, json_text(request))
    assert read == request and not read.image.is_here


def test_json_text_is_never_a_path(file: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"image=.*must be the description of an image"):
        GenerationRequest.model_validate_json(f'{{"prompt": "a cat", "image": "{file}"}}')


def test_what_is_no_image_names_the_field(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"image=.*does not exist"):
        GenerationRequest(prompt="a cat", image=tmp_path / "none.png")


def test_bytes_in_a_message_are_short() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        GenerationRequest(prompt="a cat", image=b"\0" * 1000)
    assert len(str(caught.value)) < 250


def test_a_fit_needs_an_image() -> None:
    with pytest.raises(InvalidRequestError, match="image_fit='pad': has no effect without image"):
        GenerationRequest(prompt="a cat", image_fit="pad")
