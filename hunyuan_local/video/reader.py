"""Reading an mp4: what it holds, its comment, its frames; a file cut short is refused."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..config.places import message_file
from ..errors import VideoError
from ..schema import VideoInfo
from .ffmpeg import ffmpeg, tail

COMMENT_BOXES = ((b"moov", 0), (b"udta", 0), (b"meta", 4), (b"ilst", 0), (b"\xa9cmt", 0), (b"data", 8))
STREAM_LINE = re.compile(
    rb"(?m)^ *Stream #0:\d[^\n]*? Video: (?P<codec>\w+)[^\n]*?, (?P<pixels>\w+)[(,][^\n]*?"
    rb" (?P<width>\d+)x(?P<height>\d+)[ ,][^\n]*? (?P<fps>[\d.]+) fps"
)


def probe(path: Path) -> VideoInfo:
    """Decode an mp4 once and say what it holds; VideoError where it is not a whole video."""
    # imageio_ffmpeg's reader times out on a long comment and fails on some Unicode line breaks in one.
    path = _check_complete(path)
    decode = ["-xerror", "-nostats", "-progress", "pipe:1", "-i", str(path), "-map", "0:v:0", "-f", "null", "-"]
    result = subprocess.run([*ffmpeg("info"), *decode], stdin=subprocess.DEVNULL, capture_output=True)
    stream = STREAM_LINE.search(result.stderr)
    counts = re.findall(rb"^frame=(\d+)", result.stdout, re.MULTILINE)
    if result.returncode or not stream or not counts:
        raise _unreadable(path, tail(result.stderr))
    width, height, num_frames, fps = int(stream["width"]), int(stream["height"]), int(counts[-1]), float(stream["fps"])
    codec, pixel_format = stream["codec"].decode(), stream["pixels"].decode()
    return VideoInfo(width, height, num_frames, fps, num_frames / fps, codec, pixel_format)


def read_metadata(path: Path) -> str | None:
    """The comment tag of an mp4, or None where it has none."""
    path = _check_complete(path)
    start, end = 0, path.stat().st_size
    for wanted, skipped in COMMENT_BOXES:
        inner = (span for kind, *span in _boxes(path, start, end) if kind == wanted)
        start, end = next(inner, (0, 0))
        if not end:
            return None
        start += skipped  # the version and flags of that kind of box
    with path.open("rb") as file:
        file.seek(start)
        return file.read(end - start).decode("utf-8", "replace")


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """The frames of an mp4 one by one, each uint8 [height, width, 3]."""
    return _decode(_check_complete(path))


def _decode(path: Path) -> Iterator[np.ndarray]:
    # PPM pictures, since each carries its size.
    command = [*ffmpeg(), "-xerror", "-i", str(path), "-map", "0:v:0", "-c:v", "ppm", "-f", "image2pipe", "-"]
    with (
        message_file() as messages,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=messages) as decoder,
    ):
        pictures = decoder.stdout
        assert pictures is not None  # it is a pipe
        while header := pictures.readline() + pictures.readline() + pictures.readline():
            width, height = map(int, header.split()[1:3])
            data = pictures.read(width * height * 3)
            if len(data) < width * height * 3:
                break  # its exit status tells
            yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
        if decoder.wait():
            messages.seek(0)
            raise _unreadable(path, tail(messages.read()))


def _check_complete(path: Path) -> Path:
    """Refuse what is not a whole mp4; ffmpeg itself decodes a truncated one without complaint."""
    path = Path(os.path.abspath(path))  # a name such as "a:b.mp4" would be a protocol to ffmpeg
    kinds = [kind for kind, _, _ in _boxes(path, 0, None)]
    if kinds[:1] != [b"ftyp"] or not {b"moov", b"mdat"} <= set(kinds):
        raise _unreadable(path, "it is empty, cut short or of another format")
    return path


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
        raise _unreadable(path, error.strerror or error) from error


def _unreadable(path: Path, cause: object) -> VideoError:
    return VideoError(f"{path}: cannot be read as an mp4 video: {cause}; make or download it again")
