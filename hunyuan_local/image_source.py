"""An input image from what users write: the path of a file, a URL, or a data URI."""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path

from .config.network import tls_context
from .errors import FieldProblem, InvalidRequestError
from .images import MAX_BYTES, InputImage, check_image, open_image
from .outbound.download import DownloadRefusedError, download

FETCH_S = 60.0
_URL = re.compile(r"https?://", re.IGNORECASE)
_DATA = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)
_MOST_BASE64 = 4 * MAX_BYTES // 3 + 4


def read_image(source: str, *, folder: Path | None = None, allow_private: bool = False) -> InputImage:
    """Return the checked image at a path, relative to ``folder``, or at a URL or data URI.

    Args:
        folder: None is the current folder.
        allow_private: fetch URLs whose address is not on the public internet too.

    Raises:
        InvalidRequestError: it cannot be read or fetched, or it is not an accepted image; names ``image``.
    """
    try:
        if is_remote(source):
            return fetch_image(source, allow_private=allow_private)
        path = Path(source).expanduser()
        return open_image(path if folder is None else folder / path)
    except ValueError as error:
        raise InvalidRequestError([FieldProblem("image", source, str(error))]) from error


def is_remote(source: str) -> bool:
    """Whether an image is given by URL or data URI, not by path."""
    return is_url(source) or bool(_DATA.match(source))


def is_url(source: str) -> bool:
    """Whether an image is given by an http(s) URL."""
    return bool(_URL.match(source))


def fetch_image(source: str, *, allow_private: bool) -> InputImage:
    """Return the checked image at a URL, in a data URI, or in base64.

    Raises:
        ValueError: it cannot be fetched or decoded, or it is not an accepted image; states the rule.
    """
    return check_image(fetch_bytes(source, allow_private=allow_private))


def fetch_bytes(source: str, *, allow_private: bool, limit_s: float = FETCH_S) -> bytes:
    """Return the unchecked file at a URL, in a data URI, or in base64.

    Raises:
        ValueError: it cannot be fetched or decoded, or it is too large; states the rule. Caused by
            :class:`~hunyuan_local.outbound.download.PrivateHostError` if the address is private.
    """
    if not is_url(source):
        return _decoded(source)
    try:
        return download(source, max_bytes=MAX_BYTES, limit_s=limit_s, allow_private=allow_private, tls=tls_context())
    except DownloadRefusedError as error:
        raise ValueError(f"cannot be fetched: {error}; or download it and give the file") from error


def _decoded(source: str) -> bytes:
    """The bytes of base64 text, with or without the start of a data URI."""
    found = _DATA.match(source)
    text = source[found.end() :] if found else source
    if len(text) > _MOST_BASE64:
        raise ValueError("the image is larger than 32 MiB")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("must be an http(s) URL, a data URI, or an image file in base64") from error
