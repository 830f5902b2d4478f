"""Serves finished videos over HTTP, with range requests, and their first frames.

Both have an entity tag derived from the file's content, so clients with a current copy get a 304.
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
from .error_answers import VideoNotReadyError

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)

MP4 = "video/mp4"
WEBP = "image/webp"

_RANGE = re.compile(r"([0-9]{1,100})-([0-9]{0,100})|-([0-9]{1,100})")


class VideoResponse(FileResponse):
    """Serves an mp4 file, whole or in ranges; ignores an invalid Range header (RFC 9110, 14.2).

    Raises:
        VideoNotReadyError: the file no longer exists.
    """

    def __init__(self, path: Path):
        try:
            found = path.stat()
            etag = f'"{_hash(path, found.st_mtime_ns, found.st_size)}"'
        except FileNotFoundError:  # deleted meanwhile
            raise VideoNotReadyError("the file no longer exists; submit the request again, with its seed") from None
        super().__init__(path, media_type=MP4, headers={"etag": etag}, stat_result=found)
        self._size = found.st_size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if is_known(scope, self.headers):
            await not_modified(self.headers)(scope, receive, send)
            return
        others = [(name, value) for name, value in scope["headers"] if name != b"range"]
        asked = Headers(scope=scope).get("range", "")
        # Ranges apply to GET only.
        ranges = _ranges(asked, self._size) if scope["method"] == "GET" else None
        headers = others if ranges is None else [*others, (b"range", ranges.encode())]
        await super().__call__({**scope, "headers": headers}, receive, send)


def thumbnail_response(path: Path, scope: Scope) -> Response:
    """The first frame of a video as a WebP image; decoded only if the client has no current copy.

    Raises:
        VideoNotReadyError: the file no longer exists, or came from a service in a format that cannot be decoded here.
        VideoError: the video has no frames.
    """
    etag = f'{VideoResponse(path).headers["etag"][:-1]}-thumbnail"'
    if is_known(scope, empty := MutableHeaders({"etag": etag})):
        return not_modified(empty)
    return Response(_thumbnail(path), media_type=WEBP, headers={"etag": etag})


@lru_cache(1024)
def _hash(path: Path, changed_ns: int, size: int) -> str:
    """The shortened SHA-256 of a file; cached until the file changes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _ranges(asked: str, size: int) -> str | None:
    """The valid Range header for a file of ``size`` bytes, without ranges beyond its end.

    None means the whole file. If all ranges are beyond the end, keeps one of them, which leads to a 416.
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

    with closing(cast("Generator[np.ndarray, None, None]", read_frames(path))) as frames:  # closing ends the decoder
        try:
            frame = next(frames, None)
        except VideoError as error:
            logger.warning("no thumbnail: %s", error)
            raise VideoNotReadyError("this video cannot be decoded here, so it has no thumbnail") from error
    if frame is None:
        raise VideoError(f"{path}: has no frames; generate it again")
    picture = io.BytesIO()
    Image.fromarray(frame).save(picture, "webp")
    return picture.getvalue()
