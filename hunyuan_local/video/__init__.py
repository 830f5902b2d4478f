"""Video files: encodes frames to H.264 mp4 files, and decodes the frames of any video file.

The only package that runs a codec. Does not depend on models, requests or the content of the metadata it stores.
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
