"""A finished video over HTTP: the file with ranges, and its first frame."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, cast

from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

from ..errors import VideoError
from ..video import read_frames
from .faults import VideoNotReadyError

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)

MP4 = "video/mp4"
WEBP = "image/webp"

_RANGE = re.compile(rb"bytes=(?:(\d{1,18})-(\d{1,18})?|-\d{1,18})")


class VideoResponse(FileResponse):
    """An mp4, whole or one range of it; a range header that makes no sense is as good as none (RFC 9110, 14.2)."""

    def __init__(self, path: Path):
        super().__init__(path, media_type=MP4)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name, value) for name, value in scope["headers"] if name != b"range" or _makes_sense(value)]
        await super().__call__({**scope, "headers": headers}, receive, send)


def _makes_sense(value: bytes) -> bool:
    found = _RANGE.fullmatch(value.strip())
    return found is not None and (found[2] is None or int(found[1]) <= int(found[2]))


def thumbnail(path: Path) -> bytes:
    """The first frame of a video as a WebP picture.

    Raises:
        VideoNotReadyError: there is no picture of it: it is as a service gave it, and cannot be decoded here.
        VideoError: it has no frame.
    """
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
