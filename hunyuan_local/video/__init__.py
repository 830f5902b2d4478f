"""Video files: frames in, one finished H.264 mp4 out, and back again.

The only package that runs a codec. Knows nothing about models, requests or what the metadata it
carries means.
"""

from __future__ import annotations

from ..schema import VideoInfo
from .output import check_output_path, partial_path
from .poster import read_poster
from .reader import probe, read_frames, read_metadata
from .tagging import publish
from .writer import VideoWriter

__all__ = [
    "VideoInfo",
    "VideoWriter",
    "check_output_path",
    "partial_path",
    "probe",
    "publish",
    "read_frames",
    "read_metadata",
    "read_poster",
]
