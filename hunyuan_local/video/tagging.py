"""Adds a comment to a finished video by remuxing it, without re-encoding."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ..durable import discard
from ..errors import VideoError
from ..schema import VideoInfo
from .ffmpeg import check_status, ffmpeg
from .output import move_into_place, partial_path
from .reader import probe


def copy_with_comment(source: Path, target: Path, metadata: str | None, *, named: Path) -> None:
    """Copy the video and audio streams, with the index at the start of the file and ``metadata`` as its comment.

    Raises:
        VideoError: ffmpeg failed; the message names the file ``named``.
    """
    # Passed through a pipe: a command line is limited in length and visible to all users of the machine.
    if metadata and "\0" in metadata:
        raise ValueError("metadata must not contain a NUL character")
    escaped = (metadata or "").translate({ord(char): f"\\{char}" for char in "=;#\\\n\r"})
    text = f";FFMETADATA1\ncomment={escaped}"  # no newline: after a backslash ffmpeg would keep it
    inputs = ["-f", "mp4", "-i", str(source), "-f", "ffmetadata", "-i", "pipe:0"]
    output = [
        "-map",
        "0:V:0",
        "-map",
        "0:a?",
        "-map_metadata",
        "1",
        "-c",
        "copy",
        "-movflags",
        "+faststart",
        "-f",
        "mp4",
    ]
    command = [*ffmpeg(), *inputs, *output, str(target)]
    result = subprocess.run(command, input=text.encode(), capture_output=True, start_new_session=True)
    check_status(named, result.returncode, result.stderr)


def publish(source: Path, path: Path, metadata: str, info: VideoInfo, *, overwrite: bool = False) -> None:
    """Copy the video in ``source`` to ``path`` with ``metadata`` as its comment; ``source`` is kept.

    Args:
        source: an mp4.
        info: properties of ``source``; the copy must have the same.

    Raises:
        OutputExistsError: another file has taken the name in the meantime.
        VideoError: the copy cannot be written, or has other properties; ``path`` is not written.
    """
    target = Path(os.path.abspath(path))
    partial = partial_path(target)
    try:
        copy_with_comment(Path(os.path.abspath(source)), partial, metadata, named=path)
        if (copy := probe(partial)) != info:
            raise VideoError(f"{path}: {(what := f'the copy with a comment has {copy}, not {info}')}", what)
        move_into_place(partial, target, overwrite)
    except OSError as error:
        what = f"cannot be written: {error}"
        raise VideoError(f"{path}: {what}; check the disk and the folder", what) from error
    finally:
        discard(partial)
