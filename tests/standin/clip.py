"""The small real mp4 that the stand-in serves."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from pathlib import Path

import imageio_ffmpeg

KEPT = Path(__file__).parent / "clips"  # the usual sizes, so that most tests start no encoder


@functools.cache
def sample_video(width: int = 1280, height: int = 720, frames: int = 5) -> bytes:
    """An H.264 mp4 of ffmpeg's test image at 24 frames per second; unusual sizes are encoded once per process."""
    kept = KEPT / f"{width}x{height}x{frames}.mp4"
    return kept.read_bytes() if kept.exists() else encode(width, height, frames)


def encode(width: int, height: int, frames: int) -> bytes:
    """Encode such a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.mp4"
        source = f"testsrc=size={width}x{height}:rate=24"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", source]
        command += ["-frames:v", str(frames), "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]
        # The index comes first, as in files for the web: a truncated file still opens.
        command += ["-movflags", "+faststart", str(path)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return path.read_bytes()
