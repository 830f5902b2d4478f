"""The container of a video file: whether it is whole, and its comment. Nothing is decoded."""

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
# None of these formats makes ffmpeg open a second file.
_OTHER_FORMATS = "matroska,avi,mpegts,mpeg,flv,ogg,gif,asf"
_FORMAT_LINE = re.compile(rb"(?m)^Input #0, (\S+), from ")
_CUT_SHORT = (b"ended prematurely", b"corrupt input packet")


def container_of(path: Path) -> str:
    """The container of a whole video file: ``mp4``, also for QuickTime, or ffmpeg's name, such as ``matroska,webm``.

    Raises:
        VideoError: it is not a video, or it is cut short.
    """
    path = _absolute(path)
    return _other_container(path) if _first_box(path) not in _FIRST_BOXES else _check_mp4(path)


def check_whole(path: Path) -> Path:
    """The absolute path of a whole video file; raises as :func:`container_of`."""
    container_of(path)
    return _absolute(path)


def read_metadata(path: Path) -> str | None:
    """The comment tag of an mp4, or None where it has none.

    Raises:
        VideoError: it is not a whole mp4.
    """
    path = _absolute(path)
    _check_mp4(path)
    start, end = 0, path.stat().st_size
    for wanted, skipped in _COMMENT_BOXES:
        inner = (span for kind, *span in _boxes(path, start, end) if kind == wanted)
        start, end = next(inner, (0, 0))
        if not end:
            return None
        start += skipped  # the version and flags of that kind of box
    with path.open("rb") as file:
        file.seek(start)
        return file.read(end - start).decode("utf-8", "replace")


def unreadable(path: Path, cause: object) -> VideoError:
    """The error about a file that is not a video, or cannot be decoded."""
    return VideoError(f"{path}: cannot be read as a video: {cause}; make or download it again", str(cause))


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # a name such as "a:b.mp4" would be a protocol to ffmpeg


def _first_box(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(8)[4:]
    except OSError as error:
        raise unreadable(path, error.strerror or error) from error


def _check_mp4(path: Path) -> str:
    """Refuse what is not a whole mp4 with video; ffmpeg itself decodes a truncated one without complaint."""
    spans = {kind: span for kind, *span in _boxes(path, 0, None)}
    if not {b"moov", b"mdat"} <= spans.keys():
        raise unreadable(path, "it is empty, cut short or of another format")
    tracks = [span for kind, *span in _boxes(path, *spans[b"moov"]) if kind == b"trak"]
    media = [span for track in tracks for kind, *span in _boxes(path, *track) if kind == b"mdia"]
    handlers = [start for medium in media for kind, start, _ in _boxes(path, *medium) if kind == b"hdlr"]
    if not any(_read(path, start + 8, 4) == b"vide" for start in handlers):
        raise unreadable(path, "it holds no video")
    return MP4


def _other_container(path: Path) -> str:
    """Read a file of another container from beginning to end, packet by packet."""
    only = ["-format_whitelist", _OTHER_FORMATS, "-protocol_whitelist", "file"]
    command = [*ffmpeg("info"), "-xerror", *only, "-i", str(path), "-map", "0:V:0", "-c", "copy", "-f", "null", "-"]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    found = _FORMAT_LINE.search(result.stderr)
    if result.returncode or not found or any(words in result.stderr for words in _CUT_SHORT):
        raise unreadable(path, "it is empty, cut short or of another format")
    return found[1].decode()


def _boxes(path: Path, start: int, end: int | None) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each mp4 box between two offsets; VideoError where one is cut short."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END) if end is None else end
            while end - start >= 8:
                file.seek(start)
                head = file.read(16)
                size, kind, header = int.from_bytes(head[:4], "big"), head[4:8], 8
                if size == 1 and len(head) == 16:  # the size did not fit into 32 bits
                    size, header = int.from_bytes(head[8:], "big"), 16
                elif size == 0:  # the last box of the file
                    size = end - start
                if size < header or start + size > end:
                    raise OSError("it is cut short or of another format")
                yield kind, start + header, start + size
                start += size
    except OSError as error:
        raise unreadable(path, error.strerror or error) from error


def _read(path: Path, start: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(length)
