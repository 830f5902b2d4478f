"""Image files as visitors upload them: good ones, and one of each bad kind with the words of its refusal."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

from hunyuan_local.images import MAX_BYTES


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    """The bytes of a file."""
    content = io.BytesIO()
    image.save(content, format=format, **options)
    return content.getvalue()


def _bomb() -> bytes:
    """A PNG file that declares 40,000 x 40,000 pixels and holds almost no data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 64)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


PICTURE = encoded(Image.effect_mandelbrot((96, 64), (-2, -1.3, 1, 1.3), 100).convert("RGB"))
CLEAR = encoded(Image.new("RGBA", (64, 96), (200, 30, 30, 100)))
_FRAMES = [Image.new("RGB", (48, 32), colour) for colour in ("red", "blue")]
# By kind: the file, and a part of the sentence in the form.
POISONED = {
    "empty": (b"", "the file is empty"),
    "text": (b"not an image at all", "not that of an image of an accepted format"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>', "not that of an image"),
    "truncated": (encoded(Image.effect_noise((256, 256), 80))[:5000], "damaged or incomplete"),
    "bomb": (_bomb(), "pixels; the limit is 50,000,000"),
    "animation": (encoded(_FRAMES[0], "GIF", save_all=True, append_images=_FRAMES[1:]), "holds 2 images"),
    "tiny": (encoded(Image.new("RGB", (8, 8))), "at least 16"),
}
TOO_LARGE = b"\x89PNG" + b"\0" * MAX_BYTES
