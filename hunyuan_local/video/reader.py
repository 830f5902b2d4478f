"""Reading a video file: what it holds, its comment, its frames; a file cut short is refused.

An mp4 (or QuickTime) file is checked box by box. Other containers are read as far as ffmpeg knows them and they
are single files: a playlist or a list of files, which would make ffmpeg open others, is refused.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..config.places import message_file
from ..schema import VideoInfo
from .container import check_whole, unreadable
from .ffmpeg import every_frame, ffmpeg, tail

_MAPPING = re.compile(rb"(?m)^  Stream #0:(\d+) -> #0:0")
_RATE = re.compile(rb" (?P<fps>[\d.]+)(?P<thousands>k?) (?:fps|tbr)\b")
# What is transparent becomes black. Of a file without transparency this changes nothing, to the last bit.
ON_BLACK = "format=rgba,scale=alphablend=uniform_color,format=rgb24"
_RGB = ["-vf", ON_BLACK, "-c:v", "ppm", "-f", "image2pipe", "-"]


def probe(path: Path) -> VideoInfo:
    """Decode a video file once and say what it holds; the size is that of its frames, see :func:`read_frames`.

    Of a variable frame rate ``fps`` is the average.

    Raises:
        VideoError: it is not a whole video, or cannot be decoded.
    """
    # imageio_ffmpeg's reader times out on a long comment and fails on some Unicode line breaks in one.
    path = check_whole(path)
    decode = ["-xerror", "-nostats", "-progress", "pipe:1", "-i", str(path), *every_frame(), "-f", "null", "-"]
    result = subprocess.run([*ffmpeg("info"), *decode], stdin=subprocess.DEVNULL, capture_output=True)
    counts = re.findall(rb"^frame=(\d+)", result.stdout, re.MULTILINE)
    stream, decoded = _stream_lines(result.stderr)
    # The frames are turned as the file's display matrix says, which the size of the stream itself is not.
    size = re.search(rb" (\d+)x(\d+)[ ,]", decoded)
    about = re.search(rb" Video: (?P<codec>\w+)[^\n]*?, (?P<pixels>\w+)[(,]", stream)
    if result.returncode or not about or not size or not counts or counts[-1] == b"0":
        for _ in _decode(path):  # which says no more than what ffmpeg calls an error
            continue
        raise unreadable(path, tail(result.stderr))
    num_frames, fps = int(counts[-1]), frame_rate(stream) or frame_rate(decoded) or 1.0
    codec, pixel_format = about["codec"].decode(), about["pixels"].decode()
    return VideoInfo(int(size[1]), int(size[2]), num_frames, fps, num_frames / fps, codec, pixel_format)


def frame_rate(stream: bytes) -> float | None:
    """Frames a second by ffmpeg's line about a stream; None where it names none."""
    found = _RATE.search(stream)
    return float(found["fps"]) * (1000 if found["thousands"] else 1) if found else None


def _stream_lines(messages: bytes) -> tuple[bytes, bytes]:
    """What ffmpeg says of the stream that it has read, and of what it became; empty where it says nothing."""
    mapping = _MAPPING.search(messages)
    number = mapping[1] if mapping else b"0"
    lines = [line for line in messages.split(b"\n") if b" Video: " in line]
    read = [line for line in lines if re.match(rb" *Stream #0:%b\b" % number, line)]
    made = [line for line in lines if re.match(rb" *Stream #0:0\b.* Video: wrapped_avframe", line)]
    return read[0] if read else b"", made[-1] if made else b""


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """The frames of a video file one by one, each uint8 [height, width, 3]: RGB, as a player shows them.

    There are as many as the file holds: a variable frame rate neither repeats nor drops any. They are turned as the
    file's display matrix says. Colours follow the range and the matrix that the file names, and BT.601 where it
    names none; samples of more than 8 bits are rounded, and high dynamic range is not mapped to a smaller one. What
    is transparent is shown on black; transparency that a WebM file keeps apart is not looked at.

    Raises:
        VideoError: it is not a whole video, or cannot be decoded.
    """
    return _decode(check_whole(path))


def _decode(path: Path) -> Iterator[np.ndarray]:
    # PPM pictures, since each carries its size.
    command = [*ffmpeg(), "-xerror", "-i", str(path), *every_frame(), *_RGB]
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
            raise unreadable(path, tail(messages.read()))
