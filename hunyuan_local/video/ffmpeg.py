"""Finds ffmpeg, builds its command lines and reports its errors."""

from __future__ import annotations

import re
import shutil
import subprocess
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import imageio_ffmpeg

from ..errors import VideoError


def ffmpeg(level: str = "error") -> list[str]:
    """The start of every command: overwrites its output, and prints messages of ``level``."""
    with suppress(RuntimeError):  # imageio_ffmpeg found no ffmpeg
        if exe := shutil.which(imageio_ffmpeg.get_ffmpeg_exe()):
            return [exe, "-y", "-hide_banner", "-v", level]
    raise VideoError("ffmpeg not found; reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE to an ffmpeg binary")


def every_frame() -> list[str]:
    """Options that keep all frames of the first video stream; by default ffmpeg repeats and drops frames."""
    return ["-map", "0:V:0", *_passthrough(ffmpeg()[0])]


@lru_cache
def _passthrough(exe: str) -> list[str]:
    """The passthrough option, which ffmpeg 5.1 renamed; newer versions do not accept the old name."""
    said = subprocess.run([exe, "-version"], stdin=subprocess.DEVNULL, capture_output=True).stdout
    version = re.search(rb"^ffmpeg version n?(\d+)\.(\d+)", said)
    is_old = version is not None and (int(version[1]), int(version[2])) < (5, 1)
    return ["-vsync", "0"] if is_old else ["-fps_mode", "passthrough"]


def tail(messages: bytes) -> str:
    return messages.decode("utf-8", "replace").strip()[-1500:] or "no message"


def check_status(path: Path, status: int, messages: bytes) -> None:
    """Raise a VideoError with ffmpeg's messages if its exit ``status`` is not 0."""
    if status:
        what = f"ffmpeg failed with status {status}; no file was kept; check the free disk space and the size"
        raise VideoError(f"{path}: {what}; ffmpeg's output: {tail(messages)}", tail(messages))
