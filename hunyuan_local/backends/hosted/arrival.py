"""Checks a downloaded video and publishes it under its name.

The video is paid for, so it is never deleted because it cannot be checked: it is published with a note that says what
was not checked or, if only checked videos may be published, moved aside. Does not depend on services or the network.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ...config import SafetyConfig
from ...durable import sync_names
from ...errors import ContentBlockedError, UncheckedVideoError, VideoError, first_line
from ...json_text import json_text
from ...provenance import Provenance, file_sha256, statement_path
from ...schema import SafetyVerdict, VideoInfo
from ...video import MP4, container_of, move_into_place, probe, publish, read_frames
from ..safety_check import Inspection, flag_note, unchecked_note, why_not_checked

_ADDRESS = re.compile(r"\[[^\]]* @ 0x[0-9a-f]+\] ?")


@dataclass
class Findings:
    """The results of examining a downloaded file.

    Attributes:
        container: ``mp4``, or ffmpeg's name of another container format.
        info, frames_sha256: None if the frames cannot be decoded.
        safety: None if no check was made.
        unchecked: why a configured safety check was not made; otherwise empty.
        notes: notes for the user.
    """

    container: str
    info: VideoInfo | None = None
    frames_sha256: str | None = None
    safety: SafetyVerdict | None = None
    unchecked: str = ""
    notes: list[str] = field(default_factory=list)


def examine(path: Path, safety: SafetyConfig) -> Findings:
    """Decode all frames of a file, and run the safety check if one is configured.

    Raises:
        ContentBlockedError: the safety check blocked the video.
        VideoError: the file is not a complete video.
    """
    found = Findings(container_of(path))
    try:
        found.info = probe(path)
        digest, inspection = hashlib.sha256(), Inspection(safety, found.info.num_frames)
        for frame in read_frames(path):
            digest.update(frame.tobytes())
            inspection.add(frame[None])
        found.frames_sha256 = digest.hexdigest()
    except Exception as error:  # any error: the video is paid for, so keep it
        why = f"its frames cannot be decoded here ({_cause(error)})"
        found.unchecked = why if safety.mode != "off" else ""
        lacking = "frames_sha256 is" if found.info else "their size and count are unknown, and frames_sha256 is"
        found.notes.append(f"the video was not checked: {why}; {lacking} null")
        return found
    try:
        found.safety = inspection.finish()
    except ContentBlockedError:
        raise
    except Exception as error:
        found.unchecked = why_not_checked(error)
    if found.safety is not None and found.safety.flagged:
        found.notes.append(flag_note(found.safety))
    return found


def keep_to_the_check(found: Findings, safety: SafetyConfig, path: Path, aside: Path) -> None:
    """Apply the safety mode to a video that could not be checked: add a note, or in mode ``block`` move it aside.

    Raises:
        UncheckedVideoError: the video was moved aside and must not be published.
        VideoError: it cannot be moved aside.
    """
    if not found.unchecked:
        return
    if safety.mode == "flag":
        found.notes.append(unchecked_note(found.unchecked))
        return
    try:
        os.replace(path, aside)
    except OSError as error:
        raise VideoError(f"{aside}: cannot be written: {error}; check the disk and the folder") from error
    sync_names(aside.parent)
    raise UncheckedVideoError(
        f"the safety check could not be made: {found.unchecked}; --safety block does not publish unchecked videos, so "
        f"this one, which is paid for, was saved as {aside}; review it yourself",
        aside,
    )


def aside_of(output: Path, job_id: str) -> Path:
    """The path for a video that must not be published: next to its output, with a suffix that no player opens."""
    return output.with_name(f"{output.name[:40]}.{job_id}.unchecked")


def deliver(
    path: Path, output: Path, found: Findings, state: Callable[[list[str], str | None], Provenance], overwrite: bool
) -> Provenance:
    """Publish a downloaded file with its provenance inside, or unmodified with the provenance in a .json file.

    Args:
        state: builds the provenance from the notes and, for an unmodified file, its SHA-256.

    Raises:
        OutputExistsError: another file has taken the name in the meantime.
        VideoError: the file cannot be written to the folder.
    """
    why = f"it is not an mp4 file but {found.container}" if found.container != MP4 else ""
    if found.info is not None and not why:
        statement = state(found.notes, None)
        try:
            publish(path, output, json_text(statement), found.info, overwrite=overwrite)
            return statement
        except VideoError as error:
            why = f"it cannot be remuxed ({_cause(error)})"
    as_it_came = f"the file is unmodified{f', since {why}' if why else ''}"
    found.notes.append(f"{as_it_came}; its provenance is in the .json file next to it")
    statement = state(found.notes, file_sha256(path))
    try:
        # The provenance first, so that a crash never leaves a paid video without it.
        with statement_path(output).open("w" if overwrite else "x", encoding="utf-8") as file:
            file.write(json_text(statement))
    except OSError as error:  # publish the video without its provenance
        found.notes[-1] = f"{as_it_came}; its provenance could not be written: {error}"
        statement = statement.model_copy(update={"notes": state(found.notes, None).notes})
    try:
        move_into_place(path, output, overwrite)
    except OSError as error:
        raise VideoError(f"{output}: cannot be written: {error}; check the disk and the folder") from error
    return statement


def _cause(error: Exception) -> str:
    """The first line of ffmpeg's output without memory addresses; for other errors, their type and first line."""
    if not isinstance(error, VideoError):
        return f"{type(error).__name__}: {first_line(error)}"
    lines = [line.strip() for line in _ADDRESS.sub("", error.cause or str(error)).splitlines()]
    return next(filter(None, lines), "no reason given")[:200]
