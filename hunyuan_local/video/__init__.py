"""Video files: frames in, one finished H.264 mp4 out; and the frames of any video file.

The only package that runs a codec. Knows nothing about models, requests or what the metadata it
carries means.
"""

from __future__ import annotations

from ..schema import VideoInfo
from .container import MP4, container_of, read_metadata
from .output import check_output_path, move_into_place, partial_path
from .poster import read_poster
from .reader import probe, read_frames
from .tagging import publish
from .writer import VideoWriter

__all__ = [
    "MP4",
    "VideoInfo",
    "VideoWriter",
    "check_output_path",
    "container_of",
    "move_into_place",
    "partial_path",
    "probe",
    "publish",
    "read_frames",
    "read_metadata",
    "read_poster",
]
