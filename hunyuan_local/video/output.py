"""Output paths: checks them before the work, and moves finished files into place atomically.

A file appears under its name only when it is complete; until then it is a hidden ``.partial`` file in the same folder.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..durable import begin_partial, sync, sync_names
from ..errors import ConfigError, OutputExistsError, VideoError
from .ffmpeg import ffmpeg


def check_output_path(path: Path, overwrite: bool) -> None:
    """Refuse a path to which no video can be written, before any work is done.

    Raises:
        ConfigError: the suffix is not .mp4, the path is a folder, or its folder is missing or not writable.
        OutputExistsError: the file exists and ``overwrite`` is false.
        VideoError: ffmpeg is not found.
    """
    if path.suffix.lower() != ".mp4":
        raise ConfigError(f"output {path}: the name must end in .mp4; try {path.name or 'video'}.mp4")
    check_folder(f"output {path}", path)
    if path.is_dir():
        raise ConfigError(f"output {path}: is a folder; name a file in it, such as {path / 'video.mp4'}")
    ffmpeg()  # fail before the work if it is missing
    if not overwrite and os.path.lexists(path):
        raise OutputExistsError(f"output {path}: already exists; choose another name, or use --overwrite")


def check_folder(field: str, path: Path) -> None:
    """Refuse a path at which no file can be created; ``field`` begins the message.

    Raises:
        ConfigError: its folder is missing or not writable, or its name exceeds the file system's limit.
    """
    folder = path.parent
    if not folder.is_dir():
        raise ConfigError(f"{field}: the folder {folder} does not exist; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"{field}: the folder {folder} is not writable; make it writable or choose another")
    if len(os.fsencode(path.name)) > 255:
        raise ConfigError(f"{field}: the name is longer than 255 bytes; choose a shorter one")


def partial_path(target: Path, purpose: str = "") -> Path:
    """Create a hidden file next to ``target``, reserved for this process until ``durable.discard``.

    Raises:
        VideoError: the file cannot be created.
    """
    try:
        return begin_partial(target, purpose)
    except OSError as error:
        raise VideoError(f"{target}: cannot be written: {error}; check the disk and the folder") from error


def move_into_place(partial: Path, target: Path, overwrite: bool) -> None:
    """Rename a finished file in the same folder to ``target``, durably; replaces a file only with ``overwrite``.

    Raises:
        OutputExistsError: another file has taken the name in the meantime.
        OSError: the file cannot be renamed.
    """
    sync(partial)
    try:
        if not overwrite:
            os.link(partial, target)  # unlike a rename, never replaces a file
    except OSError:  # the name is taken, or the file system does not support links
        check_output_path(target, overwrite=False)
    os.replace(partial, target)
    sync_names(target.parent)
