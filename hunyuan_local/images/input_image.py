"""An input image: the bytes of its file, its digest, and what a reader of the file sees.

Files come from strangers, so the format is read from the content, sizes are limited before any pixel is decoded, and
everything that Pillow can raise becomes one error. Pillow is imported only when an image is opened.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from ..errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_BYTES = 32 * 1024**2
MAX_PIXELS = 50_000_000
MIN_SIDE = 16  # one token of the transformer is 16 x 16 pixels
# Formats of still images that Pillow decodes itself; EPS and others run external programs. Pillow reports MPO for a
# JPEG followed by further views, as many cameras write it; the first one counts.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "TGA")
_ALLOWED = "JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF, JPEG 2000, PPM or TGA"
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N", "I")
WHITE = (255, 255, 255)
ON_WHITE = "the image's transparent parts were put on white"


class InputImage:
    """A checked image; immutable, and equal to any other with the same file.

    Not a dataclass, which pydantic would turn into a dictionary when a request is copied.

    Attributes:
        sha256: SHA-256 of the file, in hexadecimal; identifies the image.
        width: in pixels, after the rotation that the file's EXIF data asks for.
        height: as ``width``.
        format: format of the file as Pillow names it, such as ``PNG``.
        notes: what was changed for the model, in words for the user.
    """

    def __init__(
        self,
        sha256: str,
        width: int,
        height: int,
        format: str,
        notes: Iterable[str] = (),
        content: bytes | Path | None = None,
    ):
        self.sha256, self.width, self.height, self.format = sha256, width, height, format
        self.notes, self._content = tuple(notes), content

    def __repr__(self) -> str:
        return f"<{self.format} {_by(self.size)} {self.sha256[:12]}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InputImage) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height

    @property
    def is_here(self) -> bool:
        """Whether the file is here, or only its description, as after reading a request from JSON."""
        return self._content is not None

    def with_content(self, content: bytes | Path) -> InputImage:
        """Return the image with its file: the bytes, or a path to read when they are needed."""
        return InputImage(self.sha256, self.width, self.height, self.format, self.notes, content)

    def content(self) -> bytes:
        """The bytes of the file.

        Raises:
            ConfigError: only the description is here; or the file is gone, or has changed since it was checked.
        """
        start = f"image={self.sha256[:12]}"
        if self._content is None:
            raise ConfigError(f"{start}: only the description of this image is here; give its file again")
        if isinstance(self._content, bytes):
            return self._content
        try:
            data = self._content.read_bytes()
        except OSError as error:
            raise ConfigError(f"{start}: {self._content} cannot be read: {error.strerror}; give it again") from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise ConfigError(
                f"{start}: {self._content} has changed since it was checked, or is damaged; give it again"
            )
        return data

    def pixels(self) -> Image:
        """Decode the image: RGB, upright, without transparency; raises what :meth:`content` raises."""
        return _upright_rgb(_open(self.content()))

    def described(self) -> dict[str, Any]:
        """The description without the content, for JSON."""
        return {
            "sha256": self.sha256,
            "width": self.width,
            "height": self.height,
            "format": self.format,
            "notes": list(self.notes),
        }

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Accept an image, a path, bytes or a Pillow image from Python, and only a description from JSON."""
        return core_schema.json_or_python_schema(
            json_schema=core_schema.no_info_plain_validator_function(_from_description),
            python_schema=core_schema.no_info_plain_validator_function(open_image),
            serialization=core_schema.plain_serializer_function_ser_schema(cls.described, when_used="json"),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The JSON schema of a description."""
        size = {"type": "integer", "minimum": 1}
        properties = {
            "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            "width": size,
            "height": size,
            "format": {"type": "string"},
            "notes": {"type": "array", "items": {"type": "string"}},
        }
        return {"type": "object", "properties": properties, "required": ["sha256", "width", "height", "format"]}


def open_image(given: object) -> InputImage:
    """Return the checked image for a path, the bytes of a file, a Pillow image, or a description.

    Raises:
        ValueError: it cannot be read, is not an image of an accepted kind, or is too large; states the rule.
    """
    if isinstance(given, InputImage):
        return given
    if isinstance(given, dict):
        return _from_description(given)
    if isinstance(given, (bytes, bytearray)):
        return check_image(bytes(given))
    if isinstance(given, (str, os.PathLike)):
        path = Path(given).absolute()
        return check_image(_read(Path(given))).with_content(path)
    if hasattr(given, "save") and hasattr(given, "getexif"):
        content = io.BytesIO()
        given.save(content, format="PNG")
        return check_image(content.getvalue())
    raise ValueError("must be a path, the bytes of an image file, or a Pillow image")


def check_image(data: bytes) -> InputImage:
    """Return the image if the bytes are a complete still image within the limits; decodes it once.

    Raises:
        ValueError: they are not; states the rule.
    """
    if not data:
        raise ValueError(f"the file is empty; give a {_ALLOWED} file")
    if len(data) > MAX_BYTES:
        raise ValueError(f"the file has {len(data):,} bytes; the limit is 32 MiB ({MAX_BYTES:,} bytes)")
    opened = _open(data)
    _check_still(opened)
    upright = _upright_rgb(opened)
    if min(upright.size) < MIN_SIDE:
        raise ValueError(f"the image has {_by(upright.size)} pixels; each side must have at least {MIN_SIDE}")
    notes = (ON_WHITE,) if opened.has_transparency_data else ()
    digest = hashlib.sha256(data).hexdigest()
    format = "JPEG" if opened.format == "MPO" else str(opened.format)
    return InputImage(digest, upright.width, upright.height, format, notes, data)


def _read(path: Path) -> bytes:
    """Read a file, unless it is too large."""
    if str(path).startswith(("http:/", "https:/", "data:")):
        raise ValueError("must be a file here; the command line, batches and the server also accept URLs")
    try:
        if not path.is_file():
            raise ValueError(f"the file does not exist, or is not a file; give a {_ALLOWED} file")
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror or error}") from error


def _open(data: bytes) -> Image:
    """Open the file without decoding its pixels, which are counted first."""
    from PIL import Image, UnidentifiedImageError

    Image.init()
    readable = [name for name in FORMATS if name in Image.OPEN]  # AVIF depends on how Pillow was built
    try:
        with warnings.catch_warnings():
            # Pillow only warns up to twice its own limit, which is larger than ours; ours is checked below.
            warnings.simplefilter("ignore")
            opened = Image.open(io.BytesIO(data), formats=readable)
    except Image.DecompressionBombError as error:
        raise ValueError(f"the image has too many pixels; the limit is {MAX_PIXELS:,}") from error
    except UnidentifiedImageError as error:
        raise ValueError(
            f"the content is not that of an image of an accepted format; give a {_ALLOWED} file"
        ) from error
    except Exception as error:  # Pillow's readers raise many kinds for damaged headers
        raise ValueError(f"the image is damaged: {error}") from error
    if opened.width * opened.height > MAX_PIXELS:
        raise ValueError(
            f"the image has {_by(opened.size)} = {opened.width * opened.height:,} pixels; the limit is {MAX_PIXELS:,}"
        )
    return opened


def _check_still(opened: Image) -> None:
    count = getattr(opened, "n_frames", 1)
    if count > 1 and opened.format != "MPO":
        raise ValueError(f"the file holds {count} images, such as an animation; give a file with a single image")


def _upright_rgb(opened: Image) -> Image:
    """Decode, turn by EXIF, and convert to RGB; transparent parts become white."""
    from PIL import Image, ImageOps

    try:
        # Without 'seek' an MPO or TIFF file stays at its first image.
        image = ImageOps.exif_transpose(opened)
        if image.mode in _SIXTEEN_BIT:
            image = _eight_bit(image)
        if opened.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, (*WHITE, 255)), image)
        return image.convert("RGB")
    except ValueError:
        raise
    except Exception as error:  # truncated or damaged pixels: Pillow's readers raise many kinds
        raise ValueError(f"the image is damaged or incomplete: {error}") from error


def _eight_bit(image: Image) -> Image:
    """Scale 16-bit grey values to 8 bits; Pillow's own conversion would clip them to white."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("the image has more than 16 bits per channel; save it with 8 or 16")
    return Image.fromarray(np.round(values / 257).astype(np.uint8))


def _from_description(given: object) -> InputImage:
    """Read what ``described`` returned."""
    if not isinstance(given, dict):
        raise ValueError("must be the description of an image: sha256, width, height, format")
    try:
        known = {name: given[name] for name in ("sha256", "width", "height", "format")}
    except KeyError as error:
        raise ValueError(f"the description of an image lacks {error.args[0]}") from None
    return InputImage(**known, notes=given.get("notes", ()))


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
