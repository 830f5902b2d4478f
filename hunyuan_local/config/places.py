"""Folders of the package and the user, and whether the network may be used.

This is the only module that looks up the home folder, the user and the folder for temporary files, since a container
may have none of them.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from platformdirs import user_cache_path, user_data_path, user_state_path

from ..durable import OwnFolder
from ..errors import ConfigError

GIB = 2**30  # bytes
PACKAGE_DIR = Path(__file__).resolve().parents[1]
_NO_HOME = "the home folder is unknown: HOME is not set, and this user has no account"
# Cache folders of libraries that would otherwise look up the home folder themselves.
_CACHES_OF_LIBRARIES = {
    "TORCHINDUCTOR_CACHE_DIR": "torchinductor",
    "TRITON_CACHE_DIR": "triton",
    "MPLCONFIGDIR": "matplotlib",
}


def configs_dir() -> Path:
    """The folder ``configs``, inside the installed package, or next to it in a checkout."""
    inside = PACKAGE_DIR / "configs"
    return inside if inside.is_dir() else PACKAGE_DIR.parent / "configs"


def offline_by() -> str | None:
    """The variable that forbids downloads, ``HF_HUB_OFFLINE`` or ``TRANSFORMERS_OFFLINE``; None if neither is set."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return next((name for name in names if os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}), None)


def is_offline() -> bool:
    """Whether the environment forbids downloads."""
    return offline_by() is not None


def user_path(field: str, text: str | Path) -> Path:
    """Expand ``~`` and ``~name`` in a path from the user.

    Raises:
        ConfigError: the home folder is unknown.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{field}={str(text)!r}: no such home folder; give an absolute path, or set HOME") from error


def state_dir() -> Path:
    """Folder of the user's persistent state: ``HUNYUAN_LOCAL_STATE_DIR``, or the system's standard folder.

    Raises:
        ConfigError: the home folder is unknown, and the variable is not set.
    """
    return _usual("HUNYUAN_LOCAL_STATE_DIR", user_state_path)


def known_state_dir() -> Path | None:
    """Like :func:`state_dir`, for reading: None instead of an error if the folder is unknown."""
    with contextlib.suppress(ConfigError):
        return state_dir()
    return None


def cache_dir() -> Path:
    """Folder of cached data: ``HUNYUAN_LOCAL_CACHE_DIR``, or the system's standard folder.

    Raises:
        ConfigError: the home folder is unknown, and the variable is not set.
    """
    return _usual("HUNYUAN_LOCAL_CACHE_DIR", user_cache_path)


def default_data_dir() -> Path:
    """Folder of a server's jobs: ``HUNYUAN_LOCAL_DATA_DIR``, or the system's standard folder.

    Raises:
        ConfigError: the home folder is unknown, and the variable is not set.
    """
    return _usual("HUNYUAN_LOCAL_DATA_DIR", user_data_path, ", or give --data-dir")


def has_home() -> bool:
    """Whether this user's home folder is known; it may not exist."""
    return os.path.expanduser("~") != "~"


def why_not_writable(folder: Path) -> str:
    """Why no file can be created in a folder or its nearest existing parent; empty if it can."""
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        return f"{folder} is not a folder"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"{folder} is not writable"


def temporary_root() -> Path:
    """The folder for temporary files.

    Raises:
        ConfigError: there is none.
    """
    with _translated_lack():
        return Path(tempfile.gettempdir())


def temporary_folder(prefix: str) -> OwnFolder:
    """Create a temporary folder for this process; deletes folders of dead processes with the same prefix.

    Raises:
        ConfigError: no temporary folder can be created.
    """
    with _translated_lack():
        return OwnFolder(prefix, Path(tempfile.gettempdir()))


def message_file() -> IO[bytes]:
    """Create an anonymous file for a program's output; in memory if there is no folder for temporary files.

    Raises:
        ConfigError: neither is possible.
    """
    try:
        return tempfile.TemporaryFile()
    except OSError:
        if hasattr(os, "memfd_create"):
            return os.fdopen(os.memfd_create("hunyuan-local"), "w+b")
    with _translated_lack():
        return tempfile.TemporaryFile()


def why_no_temporary_files() -> str:
    """What is wrong with the folder for temporary files, with the remedy; empty if nothing is."""
    try:
        with _translated_lack():
            tempfile.TemporaryFile().close()
    except ConfigError as error:
        return str(error)
    return ""


def settle_libraries() -> None:
    """Set environment variables so that libraries import without a home folder, an account or a temporary folder.

    Libraries look these up on import for cache folders that most runs never use. Variables that are already set are
    kept. Call this at the start of a program, before importing the libraries.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        # Set a path anyway; writing to it then fails with a clear error.
        tempfile.tempdir = os.environ.get("TMPDIR") or os.path.join(os.path.sep, "tmp")
    if has_home():
        return
    os.environ.setdefault("USER", f"uid{os.getuid()}")  # getpass reads it before it looks up the account
    for variable, name in _CACHES_OF_LIBRARIES.items():
        os.environ.setdefault(variable, os.path.join(tempfile.gettempdir(), f"hunyuan-local-{os.getuid()}", name))


def _usual(variable: str, convention: Callable[[str], Path], other_remedy: str = "") -> Path:
    """The folder from a variable, or the system's standard folder."""
    if root := os.environ.get(variable):
        return Path(root)
    try:
        folder = convention("hunyuan-local")
    except RuntimeError as error:
        raise ConfigError(f"{_NO_HOME}; set {variable} to a writable folder{other_remedy}") from error
    if str(folder).startswith("~"):
        raise ConfigError(f"{_NO_HOME}; set {variable} to a writable folder{other_remedy}")
    return folder


@contextlib.contextmanager
def _translated_lack() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        named = os.environ.get("TMPDIR")
        tried = f"TMPDIR={named!r}: " if named else ""
        raise ConfigError(
            f"{tried}no temporary file can be created: {error}; set TMPDIR to a writable folder"
        ) from error
