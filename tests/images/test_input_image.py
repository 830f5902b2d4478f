"""Checks of input images: what is accepted, how it is converted, and what is refused."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hunyuan_local.errors import ConfigError
from hunyuan_local.images import MAX_BYTES, InputImage, check_image, open_image
from hunyuan_local.images.input_image import ON_WHITE

SIZE = (48, 32)
RED = (220, 40, 40)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    """The bytes of a file."""
    content = io.BytesIO()
    image.save(content, format=format, **options)
    return content.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG file that declares a size and holds almost no data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def colour(image: InputImage) -> np.ndarray:
    """The mean colour of the decoded pixels."""
    return np.asarray(image.pixels()).reshape(-1, 3).mean(axis=0)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "GIF", "JPEG2000", "TGA"])
def test_the_format_is_read_from_the_content(format: str) -> None:
    image = check_image(encoded(Image.new("RGB", SIZE, RED), format))
    assert (image.format, image.size) == (format, SIZE)


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cat.txt"
    path.write_bytes(encoded(Image.new("RGB", SIZE, RED), "PNG"))
    assert open_image(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_pillow_image_is_accepted() -> None:
    assert np.abs(colour(open_image(Image.new("RGB", SIZE, RED))) - RED).max() == 0


def test_exif_turns_the_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise
    assert check_image(encoded(Image.new("RGB", SIZE, RED), "JPEG", exif=exif)).size == SIZE[::-1]


@pytest.mark.parametrize(("mode", "value"), [("RGBA", (0, 0, 0, 0)), ("LA", (0, 0))], ids=["RGBA", "LA"])
def test_transparent_parts_become_white_and_are_noted(mode: str, value: tuple[int, ...]) -> None:
    image = check_image(encoded(Image.new(mode, SIZE, value), "PNG"))
    assert (colour(image).tolist(), image.notes) == ([255, 255, 255], (ON_WHITE,))


def test_a_transparent_palette_entry_becomes_white() -> None:
    image = Image.new("P", SIZE, 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    assert colour(check_image(encoded(image, "PNG", transparency=0))).tolist() == [255, 255, 255]


def test_an_opaque_image_has_no_note() -> None:
    assert check_image(encoded(Image.new("RGB", SIZE, RED), "PNG")).notes == ()


def test_cmyk_becomes_rgb() -> None:
    image = Image.new("RGB", SIZE, RED).convert("CMYK")
    assert np.abs(colour(check_image(encoded(image, "JPEG", quality=100))) - RED).max() < 4


def test_sixteen_bit_grey_is_scaled() -> None:
    grey = Image.fromarray(np.full(SIZE[::-1], 0x8000, dtype=np.uint16))
    assert colour(check_image(encoded(grey, "PNG"))).tolist() == [128, 128, 128]


def test_a_camera_file_with_several_views_is_its_first_image() -> None:
    views = [Image.new("RGB", SIZE, c) for c in (RED, (0, 0, 255))]
    image = check_image(encoded(views[0], "MPO", save_all=True, append_images=views[1:]))
    assert image.format == "JPEG" and np.abs(colour(image) - RED).max() < 4


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_several_images_in_a_file_are_refused(format: str) -> None:
    frames = [Image.new("RGB", SIZE, c) for c in (RED, (0, 0, 255))]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="holds 2 images"):
        check_image(data)


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(ValueError, match="the limit is 50,000,000"):
        check_image(png_header(7072, 7072))


def test_a_bomb_over_the_limit_of_pillow_is_refused() -> None:
    with pytest.raises(ValueError, match="the limit is 50,000,000"):
        check_image(png_header(60000, 60000))


def test_a_file_over_32_mib_is_refused() -> None:
    with pytest.raises(ValueError, match="32 MiB"):
        check_image(b"\0" * (MAX_BYTES + 1))


@pytest.mark.parametrize("kept", [0.5, 0.98])
def test_a_truncated_file_is_refused(kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG")
    with pytest.raises(ValueError, match="damaged or incomplete"):
        check_image(data[: int(len(data) * kept)])


@pytest.mark.parametrize(
    "data", [b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<html>", b"x"],
    ids=["eps", "svg", "html", "one byte"],
)  # fmt: skip
def test_other_content_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="accepted format; give a JPEG, PNG"):
        check_image(data)


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        check_image(b"")


def test_an_image_smaller_than_a_token_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16"):
        check_image(encoded(Image.new("RGB", (15, 64)), "PNG"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        open_image(tmp_path / "no.png")


def test_a_url_is_refused_from_python() -> None:
    with pytest.raises(ValueError, match="must be a file here"):
        open_image("https://example.com/cat.png")


def test_a_description_has_no_pixels() -> None:
    image = open_image(check_image(encoded(Image.new("RGB", SIZE), "PNG")).described())
    with pytest.raises(ConfigError, match="only the description"):
        image.pixels()
