"""What is found out about a video that came from a service, and how it gets its name.

It is paid for, so it is never deleted because it cannot be checked: it is delivered with a note that says what was not
checked, and where only checked videos may be published, it is kept aside. Knows nothing about services or the network.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ...config import SafetyConfig
from ...durable import sync
from ...errors import ContentBlockedError, UncheckedVideoError, VideoError, first_line
from ...provenance import Provenance, beside, file_sha256
from ...schema import SafetyVerdict, VideoInfo
from ...video import MP4, container_of, move_into_place, probe, publish, read_frames
from ..safety_check import Inspection, flag_note

_ADDRESS = re.compile(r"\[[^\]]* @ 0x[0-9a-f]+\] ?")


@dataclass
class Findings:
    """What is known of a downloaded file.

    Attributes:
        container: ``mp4``, or ffmpeg's name of another one.
        info, frames_sha256: None where the frames cannot be decoded.
        safety: None where no check was made; where one was wanted, ``unchecked`` says why.
    """

    container: str
    info: VideoInfo | None = None
    frames_sha256: str | None = None
    safety: SafetyVerdict | None = None
    unchecked: str = ""
    notes: list[str] = field(default_factory=list)


def examine(path: Path, safety: SafetyConfig) -> Findings:
    """Look at all frames of a file.

    Raises:
        ContentBlockedError: the safety check withholds the video.
        VideoError: it is not a whole video file.
    """
    found = Findings(container_of(path))
    try:
        found.info = probe(path)
        digest, inspection = hashlib.sha256(), Inspection(safety, found.info.num_frames)
        for frame in read_frames(path):
            digest.update(frame.tobytes())
            inspection.add(frame[None])
        found.frames_sha256 = digest.hexdigest()
    except Exception as error:  # whatever it is, the video is paid for
        why = f"its frames cannot be decoded here ({_cause(error)})"
        found.unchecked = why if safety.mode != "off" else ""
        lacking = "frames_sha256 is" if found.info else "their size and number are not known, and frames_sha256 is"
        found.notes.append(f"the video is not checked: {why}; {lacking} null")
        return found
    try:
        found.safety = inspection.finish()
    except ContentBlockedError:
        raise
    except Exception as error:
        found.unchecked = f"the classifier failed: {type(error).__name__}: {first_line(error)}"
    if found.safety is not None and found.safety.flagged:
        found.notes.append(flag_note(found.safety))
    return found


def keep_to_the_check(found: Findings, safety: SafetyConfig, path: Path, aside: Path) -> None:
    """Note that a wanted safety check was not made; where no video may be published without one, move it aside.

    Raises:
        UncheckedVideoError: it was moved, and is not to be published.
    """
    if not found.unchecked:
        return
    if safety.mode == "flag":
        found.notes.append(f"the safety check was not made: {found.unchecked}")
        return
    os.replace(path, aside)
    sync(aside.parent)
    raise UncheckedVideoError(
        f"the safety check cannot be made: {found.unchecked}; --safety block publishes no video unchecked, so this "
        f"one, which is paid for, is kept aside as {aside}; look at it yourself",
        aside,
    )


def aside_of(output: Path, job_id: str) -> Path:
    """Where a video is kept that must not be published: beside its place, under a name that no player opens."""
    return output.with_name(f"{output.name[:40]}.{job_id}.unchecked")


def deliver(
    path: Path, output: Path, found: Findings, state: Callable[[list[str], str | None], Provenance], overwrite: bool
) -> Provenance:
    """Give a downloaded file its name, with its statement inside; or as it came, with its statement beside it.

    Args:
        state: makes the statement of these notes and of the SHA-256 of a file that is delivered as it came.

    Raises:
        OutputExistsError: the name was taken meanwhile.
        VideoError: the folder does not allow it.
    """
    why = f"it is not an mp4 file but {found.container}" if found.container != MP4 else ""
    if found.info is not None and not why:
        statement = state(found.notes, None)
        try:
            publish(path, output, statement.model_dump_json(), found.info, overwrite=overwrite)
            return statement
        except VideoError as error:
            why = f"it cannot be written anew ({_cause(error)})"
    as_it_came = f"the file is as the service gave it{f', since {why}' if why else ''}"
    found.notes.append(f"{as_it_came}; how it was made stands beside it, in a file of its name and .json")
    statement = state(found.notes, file_sha256(path))
    try:
        # First, so that a crash leaves no video that nobody knows to be paid for.
        with beside(output).open("w" if overwrite else "x", encoding="utf-8") as file:
            file.write(statement.model_dump_json())
    except OSError as error:  # the video itself is more
        found.notes[-1] = f"{as_it_came}; how it was made is not kept: {error}"
        statement = statement.model_copy(update={"notes": state(found.notes, None).notes})
    try:
        move_into_place(path, output, overwrite)
    except OSError as error:
        raise VideoError(f"{output}: cannot be written: {error}; check the disk and the folder") from error
    return statement


def _cause(error: Exception) -> str:
    """The first thing that ffmpeg said, without addresses in its memory; or what another error says."""
    if not isinstance(error, VideoError):
        return f"{type(error).__name__}: {first_line(error)}"
    lines = [line.strip() for line in _ADDRESS.sub("", error.cause or str(error)).splitlines()]
    return next(filter(None, lines), "no reason given")[:200]
