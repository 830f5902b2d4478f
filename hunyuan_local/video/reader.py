"""Reads video files: their properties and frames. Truncated files are refused.

An mp4 (or QuickTime) file is checked box by box. Other containers are supported if ffmpeg supports them and they are
single files: playlists, which would make ffmpeg open other files, are refused.
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
# Blends transparent pixels with black. Frames without transparency stay bit-identical.
ON_BLACK = "format=rgba,scale=alphablend=uniform_color,format=rgb24"
_RGB = ["-vf", ON_BLACK, "-c:v", "ppm", "-f", "image2pipe", "-"]


def probe(path: Path) -> VideoInfo:
    """Decode a video file once and return its properties, with the size of its frames as :func:`read_frames` gives.

    For a variable frame rate, ``fps`` is the average.

    Raises:
        VideoError: the file is not a complete video, or cannot be decoded.
    """
    # The reader of imageio_ffmpeg times out on long comments and fails on some Unicode line breaks in them.
    path = check_whole(path)
    decode = ["-xerror", "-nostats", "-progress", "pipe:1", "-i", str(path), *every_frame(), "-f", "null", "-"]
    result = subprocess.run([*ffmpeg("info"), *decode], stdin=subprocess.DEVNULL, capture_output=True)
    counts = re.findall(rb"^frame=(\d+)", result.stdout, re.MULTILINE)
    stream, decoded = _stream_lines(result.stderr)
    # The size after rotation by the file's display matrix, which may differ from the size of the stream.
    size = re.search(rb" (\d+)x(\d+)[ ,]", decoded)
    about = re.search(rb" Video: (?P<codec>\w+)[^\n]*?, (?P<pixels>\w+)[(,]", stream)
    if result.returncode or not about or not size or not counts or counts[-1] == b"0":
        for _ in _decode(path):  # raises with ffmpeg's errors alone, without its informational messages
            continue
        raise unreadable(path, tail(result.stderr))
    num_frames, fps = int(counts[-1]), frame_rate(stream) or frame_rate(decoded) or 1.0
    codec, pixel_format = about["codec"].decode(), about["pixels"].decode()
    return VideoInfo(int(size[1]), int(size[2]), num_frames, fps, num_frames / fps, codec, pixel_format)


def frame_rate(stream: bytes) -> float | None:
    """The frame rate in ffmpeg's line about a stream; None if it has none."""
    found = _RATE.search(stream)
    return float(found["fps"]) * (1000 if found["thousands"] else 1) if found else None


def _stream_lines(messages: bytes) -> tuple[bytes, bytes]:
    """ffmpeg's lines about the input stream and the decoded stream; empty if missing."""
    mapping = _MAPPING.search(messages)
    number = mapping[1] if mapping else b"0"
    lines = [line for line in messages.split(b"\n") if b" Video: " in line]
    read = [line for line in lines if re.match(rb" *Stream #0:%b\b" % number, line)]
    made = [line for line in lines if re.match(rb" *Stream #0:0\b.* Video: wrapped_avframe", line)]
    return read[0] if read else b"", made[-1] if made else b""


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """Yield the frames of a video file as a player shows them, each RGB uint8 [height, width, 3].

    Yields each frame of the file once, also with a variable frame rate, and rotates it by the file's display matrix.
    Colours are converted by the range and matrix in the file, by default BT.601. Samples of more than 8 bits are
    rounded; there is no HDR tone mapping. Transparent pixels are blended with black; a separate alpha stream, as in
    WebM, is ignored.

    Raises:
        VideoError: the file is not a complete video, or cannot be decoded.
    """
    return _decode(check_whole(path))


def _decode(path: Path) -> Iterator[np.ndarray]:
    # As PPM images, since each includes its size.
    command = [*ffmpeg(), "-xerror", "-i", str(path), *every_frame(), *_RGB]
    with (
        message_file() as messages,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=messages) as decoder,
    ):
        stream = decoder.stdout
        assert stream is not None  # it is a pipe
        while header := stream.readline() + stream.readline() + stream.readline():
            width, height = map(int, header.split()[1:3])
            data = stream.read(width * height * 3)
            if len(data) < width * height * 3:
                break  # the exit status below shows the error
            yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
        if decoder.wait():
            messages.seek(0)
            raise unreadable(path, tail(messages.read()))
