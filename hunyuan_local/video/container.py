"""The container of a video file: checks that it is complete and reads its comment, without decoding."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ..errors import VideoError
from .ffmpeg import ffmpeg

MP4 = "mp4"
_COMMENT_BOXES = ((b"moov", 0), (b"udta", 0), (b"meta", 4), (b"ilst", 0), (b"\xa9cmt", 0), (b"data", 8))
_FIRST_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"})
# Formats that cannot make ffmpeg open a second file.
_OTHER_FORMATS = "matroska,avi,mpegts,mpeg,flv,ogg,gif,asf"
_FORMAT_LINE = re.compile(rb"(?m)^Input #0, (\S+), from ")
_CUT_SHORT = (b"ended prematurely", b"corrupt input packet")


def container_of(path: Path) -> str:
    """The container of a complete video file: ``mp4`` (also for QuickTime), or ffmpeg's name like ``matroska,webm``.

    Raises:
        VideoError: the file is not a video, or is truncated.
    """
    path = _absolute(path)
    return _other_container(path) if _first_box(path) not in _FIRST_BOXES else _check_mp4(path)


def check_whole(path: Path) -> Path:
    """The absolute path of a complete video file; raises like :func:`container_of`."""
    container_of(path)
    return _absolute(path)


def read_metadata(path: Path) -> str | None:
    """The comment tag of an mp4, or None if it has none.

    Raises:
        VideoError: the file is not a complete mp4.
    """
    path = _absolute(path)
    _check_mp4(path)
    start, end = 0, path.stat().st_size
    for wanted, skipped in _COMMENT_BOXES:
        inner = (span for kind, *span in _boxes(path, start, end) if kind == wanted)
        start, end = next(inner, (0, 0))
        if not end:
            return None
        start += skipped  # the version and flags of this kind of box
    with path.open("rb") as file:
        file.seek(start)
        return file.read(end - start).decode("utf-8", "replace")


def unreadable(path: Path, cause: object) -> VideoError:
    """The error for a file that is not a video or cannot be decoded."""
    return VideoError(f"{path}: cannot be read as a video: {cause}; generate or download it again", str(cause))


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # ffmpeg would take a relative name such as "a:b.mp4" for a protocol


def _first_box(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(8)[4:]
    except OSError as error:
        raise unreadable(path, error.strerror or error) from error


def _check_mp4(path: Path) -> str:
    """Refuse a file that is not a complete mp4 with video; ffmpeg itself decodes truncated ones without an error."""
    spans = {kind: span for kind, *span in _boxes(path, 0, None)}
    if not {b"moov", b"mdat"} <= spans.keys():
        raise unreadable(path, "it is empty, truncated or in another format")
    tracks = [span for kind, *span in _boxes(path, *spans[b"moov"]) if kind == b"trak"]
    media = [span for track in tracks for kind, *span in _boxes(path, *track) if kind == b"mdia"]
    handlers = [start for medium in media for kind, start, _ in _boxes(path, *medium) if kind == b"hdlr"]
    if not any(_read(path, start + 8, 4) == b"vide" for start in handlers):
        raise unreadable(path, "it contains no video")
    return MP4


def _other_container(path: Path) -> str:
    """Check a file in another container by reading all packets."""
    only = ["-format_whitelist", _OTHER_FORMATS, "-protocol_whitelist", "file"]
    command = [*ffmpeg("info"), "-xerror", *only, "-i", str(path), "-map", "0:V:0", "-c", "copy", "-f", "null", "-"]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    found = _FORMAT_LINE.search(result.stderr)
    if result.returncode or not found or any(words in result.stderr for words in _CUT_SHORT):
        raise unreadable(path, "it is empty, truncated or in another format")
    return found[1].decode()


def _boxes(path: Path, start: int, end: int | None) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, start, end) of each mp4 box between two offsets.

    Raises:
        VideoError: a box is truncated.
    """
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END) if end is None else end
            while end - start >= 8:
                file.seek(start)
                head = file.read(16)
                size, kind, header = int.from_bytes(head[:4], "big"), head[4:8], 8
                if size == 1 and len(head) == 16:  # the size is in the next 64 bits
                    size, header = int.from_bytes(head[8:], "big"), 16
                elif size == 0:  # the box extends to the end of the file
                    size = end - start
                if size < header or start + size > end:
                    raise OSError("it is truncated or in another format")
                yield kind, start + header, start + size
                start += size
    except OSError as error:
        raise unreadable(path, error.strerror or error) from error


def _read(path: Path, start: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(length)
