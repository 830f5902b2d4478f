"""The poster of a video: one small JPEG image."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from ..errors import VideoError
from .ffmpeg import ffmpeg, tail
from .reader import ON_BLACK, frame_rate

SIDE_PX = 320
_DURATION = re.compile(rb"Duration: (\d+):(\d+):([\d.]+)")
# JPEG files use BT.601 in full range, whatever the colour space of the video.
_SCALER = (
    ON_BLACK
    + ",scale=w='max(2,min({0},iw))':h='max(2,min({0},ih))':force_original_aspect_ratio=decrease:force_divisible_by=2"
    ":out_color_matrix=bt601:out_range=pc,format=yuvj420p"
)


def read_poster(path: Path, side: int = SIDE_PX) -> bytes:
    """The middle frame of a video as a JPEG, with a longer side of at most ``side`` pixels.

    Raises:
        VideoError: the file is not a video, or its middle frame cannot be decoded.
    """
    path = Path(os.path.abspath(path))  # ffmpeg would take a relative name such as "a:b.mp4" for a protocol
    middle_s = _middle_s(path)
    result = _picture_at(path, middle_s, side)
    if middle_s and not result.returncode and not result.stdout:  # no frame starts after this time
        result = _picture_at(path, 0.0, side)
    if result.returncode or not result.stdout:
        raise _no_picture(path, result.stderr)
    return result.stdout


def _picture_at(path: Path, start_s: float, side: int) -> subprocess.CompletedProcess[bytes]:
    picture = ["-frames:v", "1", "-vf", _SCALER.format(side), "-c:v", "mjpeg", "-q:v", "5", "-f", "image2pipe", "-"]
    start = ["-ss", f"{start_s:.6f}", "-xerror", "-threads", "1", "-i", str(path), "-map", "0:V:0"]
    return subprocess.run([*ffmpeg(), *start, *picture], stdin=subprocess.DEVNULL, capture_output=True)


def _middle_s(path: Path) -> float:
    """Seek time in seconds, half a frame before the middle frame so that it is decoded first; 0 if unknown."""
    about = subprocess.run([*ffmpeg("info"), "-i", str(path)], stdin=subprocess.DEVNULL, capture_output=True).stderr
    streams = [line for line in about.split(b"\n") if b" Video: " in line]
    if not streams:
        raise _no_picture(path, about)
    duration, fps = _DURATION.search(about), frame_rate(streams[0])
    if not duration or not fps:
        return 0.0
    hours, minutes, seconds = map(float, duration.groups())
    num_frames = round((hours * 3600 + minutes * 60 + seconds) * fps)
    return max(0.0, ((num_frames - 1) // 2 - 0.5) / fps)


def _no_picture(path: Path, messages: bytes) -> VideoError:
    cause = tail(messages).splitlines()[-1]
    return VideoError(f"{path}: cannot extract an image: {cause}; generate or download it again")
