"""A finished video over HTTP: the file with ranges, and its first frame.

Both have an entity tag made of the file's content, so that a caller who has them is not sent them again.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
from collections.abc import Generator
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from ..errors import VideoError
from ..video import read_frames
from .conditional import is_known, not_modified
from .faults import VideoNotReadyError

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)

MP4 = "video/mp4"
WEBP = "image/webp"

_RANGE = re.compile(r"([0-9]{1,100})-([0-9]{0,100})|-([0-9]{1,100})")


class VideoResponse(FileResponse):
    """An mp4, whole or ranges of it; a range header that makes no sense is as good as none (RFC 9110, 14.2).

    Raises:
        VideoNotReadyError: the file is gone.
    """

    def __init__(self, path: Path):
        try:
            found = path.stat()
            etag = f'"{_hash(path, found.st_mtime_ns, found.st_size)}"'
        except FileNotFoundError:  # deleted since it was looked for
            raise VideoNotReadyError("the file is gone; submit the request again, with its seed") from None
        super().__init__(path, media_type=MP4, headers={"etag": etag}, stat_result=found)
        self._size = found.st_size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if is_known(scope, self.headers):
            await not_modified(self.headers)(scope, receive, send)
            return
        others = [(name, value) for name, value in scope["headers"] if name != b"range"]
        asked = Headers(scope=scope).get("range", "")
        # A range is one of what GET sends; the method HEAD has none.
        ranges = _ranges(asked, self._size) if scope["method"] == "GET" else None
        headers = others if ranges is None else [*others, (b"range", ranges.encode())]
        await super().__call__({**scope, "headers": headers}, receive, send)


def thumbnail_response(path: Path, scope: Scope) -> Response:
    """The first frame of a video as a WebP picture; it is made only for a caller who does not have it.

    Raises:
        VideoNotReadyError: the file is gone, or a service gave it in a form that cannot be decoded here.
        VideoError: it has no frame.
    """
    etag = f'{VideoResponse(path).headers["etag"][:-1]}-thumbnail"'
    if is_known(scope, empty := MutableHeaders({"etag": etag})):
        return not_modified(empty)
    return Response(_thumbnail(path), media_type=WEBP, headers={"etag": etag})


@lru_cache(1024)
def _hash(path: Path, changed_ns: int, size: int) -> str:
    """The SHA-256 of a file, shortened; computed once for each time that it was changed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _ranges(asked: str, size: int) -> str | None:
    """The range header that says what is asked for of a file of ``size`` bytes, without what lies behind its end.

    None is the whole file; where all lies behind the end, one such range is left.
    """
    unit, _, listed = asked.strip().partition("=")
    parts = [part for part in map(str.strip, listed.split(",")) if part]
    ranges = [
        found for found in map(_RANGE.fullmatch, parts) if found and (not found[2] or int(found[1]) <= int(found[2]))
    ]
    if unit.lower() != "bytes" or not ranges or len(ranges) < len(parts):
        return None
    within = [part for part in ranges if (int(part[1]) < size if part[1] else int(part[3]) > 0)]
    return "bytes=" + ",".join(part[0] for part in within or ranges[:1])


def _thumbnail(path: Path) -> bytes:
    from PIL import Image

    with closing(cast("Generator[np.ndarray, None, None]", read_frames(path))) as frames:  # which also ends the decoder
        try:
            frame = next(frames, None)
        except VideoError as error:
            logger.warning("no thumbnail: %s", error)
            raise VideoNotReadyError("this video cannot be decoded here, so there is no picture of it") from error
    if frame is None:
        raise VideoError(f"{path}: has no frame; make it again")
    picture = io.BytesIO()
    Image.fromarray(frame).save(picture, "webp")
    return picture.getvalue()
