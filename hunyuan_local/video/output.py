"""The way of a finished file to its name: checked beforehand, hidden meanwhile, moved at once.

A file appears under its name only when it is complete; until then it is a hidden ``.partial``
beside it.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..durable import begin_partial, sync, sync_names
from ..errors import ConfigError, OutputExistsError, VideoError
from .ffmpeg import ffmpeg


def check_output_path(path: Path, overwrite: bool) -> None:
    """Refuse a path that no video could be written to, before any work is done.

    Raises:
        ConfigError: another suffix than .mp4, a directory, or a folder missing or not writable.
        OutputExistsError: a file is there and ``overwrite`` is false.
        VideoError: there is no ffmpeg.
    """
    folder = path.parent
    if path.suffix.lower() != ".mp4":
        raise ConfigError(f"output {path}: the name must end in .mp4; try {path.name or 'video'}.mp4")
    if not folder.is_dir():
        raise ConfigError(f"output {path}: the folder {folder} does not exist; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"output {path}: the folder {folder} is not writable; choose another or change its mode")
    if len(os.fsencode(path.name)) > 255:
        raise ConfigError(f"output {path}: the name is longer than 255 bytes; choose a shorter one")
    if path.is_dir():
        raise ConfigError(f"output {path}: is a folder; name a file in it, such as {path / 'video.mp4'}")
    ffmpeg()  # better missed now than after the work
    if not overwrite and os.path.lexists(path):
        raise OutputExistsError(f"output {path}: exists; name another file, or replace it with --overwrite")


def partial_path(target: Path, purpose: str = "") -> Path:
    """A new hidden file beside ``target`` for this process alone, until ``durable.discard``.

    Raises:
        VideoError: the disk or the folder does not allow it.
    """
    try:
        return begin_partial(target, purpose)
    except OSError as error:
        raise VideoError(f"{target}: cannot be written: {error}; check the disk and the folder") from error


def move_into_place(partial: Path, target: Path, overwrite: bool) -> None:
    """Give a finished file of the same folder its name, durably; another file of it is replaced only on request.

    Raises:
        OutputExistsError: the name was taken meanwhile.
        OSError: the disk or the folder does not allow it.
    """
    sync(partial)
    try:
        if not overwrite:
            os.link(partial, target)  # unlike a rename, never replaces a file
    except OSError:  # the name is taken meanwhile, or the file system has no links
        check_output_path(target, overwrite=False)
    os.replace(partial, target)
    sync_names(target.parent)
