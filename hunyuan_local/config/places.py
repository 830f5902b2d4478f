"""Where things lie: the package, its data, what a user's commands remember; and whether the network may be used.

Here alone it is asked for the home folder, the user and the folder of temporary files: a container may have none.
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
_NO_HOME = "the home folder is not known: HOME is not set, and this user has no account"
# Where libraries keep what they can make again; each would ask for the home folder itself.
_CACHES_OF_LIBRARIES = {
    "TORCHINDUCTOR_CACHE_DIR": "torchinductor",
    "TRITON_CACHE_DIR": "triton",
    "MPLCONFIGDIR": "matplotlib",
}


def configs_dir() -> Path:
    """Inside the installed package, or beside it in a checkout."""
    inside = PACKAGE_DIR / "configs"
    return inside if inside.is_dir() else PACKAGE_DIR.parent / "configs"


def offline_by() -> str | None:
    """The variable that forbids downloads, ``HF_HUB_OFFLINE`` or ``TRANSFORMERS_OFFLINE``; None if none does."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return next((name for name in names if os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}), None)


def is_offline() -> bool:
    """Whether the environment forbids downloads."""
    return offline_by() is not None


def user_path(field: str, text: str | Path) -> Path:
    """The path that a user gave, with ``~`` and ``~name`` as their home folders.

    Raises:
        ConfigError: that home folder is not known.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{field}={str(text)!r}: no such home folder; give the whole path, or set HOME") from error


def state_dir() -> Path:
    """The folder of what this user's commands remember: ``HUNYUAN_LOCAL_STATE_DIR``, or the system's convention.

    Raises:
        ConfigError: the home folder is not known, and the variable is not set.
    """
    return _usual("HUNYUAN_LOCAL_STATE_DIR", user_state_path)


def known_state_dir() -> Path | None:
    """As :func:`state_dir`, for those who only read; None where nothing can have been remembered."""
    with contextlib.suppress(ConfigError):
        return state_dir()
    return None


def cache_dir() -> Path:
    """The folder of what can be made again at any time: ``HUNYUAN_LOCAL_CACHE_DIR``, or the system's convention.

    Raises:
        ConfigError: the home folder is not known, and the variable is not set.
    """
    return _usual("HUNYUAN_LOCAL_CACHE_DIR", user_cache_path)


def default_data_dir() -> Path:
    """The folder of a server's jobs: ``HUNYUAN_LOCAL_DATA_DIR``, or that of the system's convention.

    Raises:
        ConfigError: the home folder is not known, and the variable is not set.
    """
    return _usual("HUNYUAN_LOCAL_DATA_DIR", user_data_path, ", or give --data-dir")


def has_home() -> bool:
    """Whether this user's home folder is known; it need not be there."""
    return os.path.expanduser("~") != "~"


def why_not_writable(folder: Path) -> str:
    """Why no file can be made in a folder, or in the one where it would be made; empty if it can."""
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        return f"{folder} is not a folder"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"{folder} is not writable"


def temporary_root() -> Path:
    """The folder in which temporary files are made.

    Raises:
        ConfigError: there is none.
    """
    with _translated_lack():
        return Path(tempfile.gettempdir())


def temporary_folder(prefix: str) -> OwnFolder:
    """A new folder for temporary files of this process; what dead processes left of the same prefix is deleted.

    Raises:
        ConfigError: there is no folder that it could be made in.
    """
    with _translated_lack():
        return OwnFolder(prefix, Path(tempfile.gettempdir()))


def message_file() -> IO[bytes]:
    """A file without a name for what a program says; in memory where no folder takes temporary files.

    Raises:
        ConfigError: neither is there.
    """
    try:
        return tempfile.TemporaryFile()
    except OSError:
        if hasattr(os, "memfd_create"):
            return os.fdopen(os.memfd_create("hunyuan-local"), "w+b")
    with _translated_lack():
        return tempfile.TemporaryFile()


def why_no_temporary_files() -> str:
    """What is wrong with the folder of temporary files, with the remedy; empty if nothing is."""
    try:
        with _translated_lack():
            tempfile.TemporaryFile().close()
    except ConfigError as error:
        return str(error)
    return ""


def settle_libraries() -> None:
    """Let libraries be imported where there is no home folder, no account or no folder for temporary files.

    They ask for these when they are imported, to name folders that most runs never need. What the environment names
    stays. To be called at the start of a program, before they are imported.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        # It can be named now; whoever writes there is refused by the system at that moment.
        tempfile.tempdir = os.environ.get("TMPDIR") or os.path.join(os.path.sep, "tmp")
    if has_home():
        return
    os.environ.setdefault("USER", f"uid{os.getuid()}")  # getpass asks for it before it looks for the account
    for variable, name in _CACHES_OF_LIBRARIES.items():
        os.environ.setdefault(variable, os.path.join(tempfile.gettempdir(), f"hunyuan-local-{os.getuid()}", name))


def _usual(variable: str, convention: Callable[[str], Path], other_remedy: str = "") -> Path:
    """The folder that a variable names, or that of the system's convention."""
    if root := os.environ.get(variable):
        return Path(root)
    try:
        folder = convention("hunyuan-local")
    except RuntimeError as error:
        raise ConfigError(f"{_NO_HOME}; set {variable} to a folder that can be written{other_remedy}") from error
    if str(folder).startswith("~"):
        raise ConfigError(f"{_NO_HOME}; set {variable} to a folder that can be written{other_remedy}")
    return folder


@contextlib.contextmanager
def _translated_lack() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        named = os.environ.get("TMPDIR")
        tried = f"TMPDIR={named!r}: " if named else ""
        raise ConfigError(
            f"{tried}no temporary file can be made: {error}; set TMPDIR to a folder that can be written"
        ) from error
