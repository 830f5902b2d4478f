"""How ffmpeg is found and called, and what is said when it fails."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import imageio_ffmpeg

from ..errors import VideoError


def ffmpeg(level: str = "error") -> list[str]:
    """How every command begins: it may replace its own output, and prints messages of ``level``."""
    with suppress(RuntimeError):  # none was found
        if exe := shutil.which(imageio_ffmpeg.get_ffmpeg_exe()):
            return [exe, "-y", "-hide_banner", "-v", level]
    raise VideoError("no ffmpeg was found; reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE to an ffmpeg")


def tail(messages: bytes) -> str:
    return messages.decode("utf-8", "replace").strip()[-1500:] or "it left no message"


def check_status(path: Path, status: int, messages: bytes) -> None:
    """VideoError, with what ffmpeg said, where its exit ``status`` is not 0."""
    if status:
        what = f"ffmpeg failed with status {status}; no file was kept; check the free disk space and the size"
        raise VideoError(f"{path}: {what}; it said: {tail(messages)}")
