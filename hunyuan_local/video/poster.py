"""One small picture that stands for a video.

Knows nothing of pages or of what the video shows.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from ..errors import VideoError
from .ffmpeg import ffmpeg, tail
from .reader import STREAM_LINE

SIDE_PX = 320
_DURATION = re.compile(rb"Duration: (\d+):(\d+):([\d.]+)")
# A JPEG file's colours are those of BT.601 in the full range, whatever the video's are.
_SCALER = (
    "scale=w='min({0},iw)':h='min({0},ih)':force_original_aspect_ratio=decrease:force_divisible_by=2"
    ":out_color_matrix=bt601:out_range=pc,format=yuvj420p"
)


def read_poster(path: Path, side: int = SIDE_PX) -> bytes:
    """The middle frame of a video as a JPEG file, its longer side at most ``side`` pixels.

    Raises:
        VideoError: the file is no video, or its middle cannot be decoded.
    """
    path = Path(os.path.abspath(path))  # a name such as "a:b.mp4" would be a protocol to ffmpeg
    picture = ["-frames:v", "1", "-vf", _SCALER.format(side), "-c:v", "mjpeg", "-q:v", "5", "-f", "image2pipe", "-"]
    start = ["-ss", f"{_middle_s(path):.6f}", "-xerror", "-threads", "1", "-i", str(path), "-map", "0:v:0"]
    result = subprocess.run([*ffmpeg(), *start, *picture], stdin=subprocess.DEVNULL, capture_output=True)
    if result.returncode or not result.stdout:
        raise _no_picture(path, result.stderr)
    return result.stdout


def _middle_s(path: Path) -> float:
    """Half a frame before the middle one, from which a decoder hands out that one first."""
    about = subprocess.run([*ffmpeg("info"), "-i", str(path)], stdin=subprocess.DEVNULL, capture_output=True).stderr
    stream, duration = STREAM_LINE.search(about), _DURATION.search(about)
    if not stream or not duration:
        raise _no_picture(path, about)
    hours, minutes, seconds = map(float, duration.groups())
    fps = float(stream["fps"])
    num_frames = round((hours * 3600 + minutes * 60 + seconds) * fps)
    return max(0.0, ((num_frames - 1) // 2 - 0.5) / fps)


def _no_picture(path: Path, messages: bytes) -> VideoError:
    cause = tail(messages).splitlines()[-1]
    return VideoError(f"{path}: no picture can be taken from it: {cause}; make or download it again")
