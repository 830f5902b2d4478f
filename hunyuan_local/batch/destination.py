"""The destination of a batch: a folder or any fsspec URL for the videos, and a local folder for the state.

Independent of requests and jobs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import secrets
from collections.abc import Iterator
from pathlib import Path

import fsspec
from filelock import FileLock, Timeout

from ..config import state_dir
from ..durable import sync_names
from ..errors import ConfigError, VideoError

_STATE = ".hunyuan-local"


class Destination:
    """Where the finished videos go. The constructor checks that it is writable.

    Args:
        where: a folder, which is created if it does not exist, or a URL such as ``s3://bucket/folder``.

    Attributes:
        state: a local folder for jobs and unfinished videos: inside the output folder, or for a URL under
            ``$HUNYUAN_LOCAL_STATE_DIR/batches``.

    Raises:
        ConfigError: the destination is not writable, or its protocol needs a package that is not installed.
    """

    def __init__(self, where: str):
        self.where = where
        self.is_local = "://" not in where
        if self.is_local:
            self._files, self._root = fsspec.filesystem("file"), os.path.abspath(where)
            self.state = Path(self._root) / _STATE
        else:
            self._files, self._root = _filesystem(where)
            self.state = state_dir() / "batches" / hashlib.sha256(where.encode()).hexdigest()[:16]
        self._check()

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Lock the batch against other processes.

        Raises:
            ConfigError: another process holds the lock, or the state folder is not writable.
        """
        lock = FileLock(self.state / "batch.lock", timeout=0)
        try:
            self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock.acquire()
        except Timeout as error:
            raise ConfigError(
                f"output_dir={self.where!r}: another process is running this batch; wait for it, or stop it"
            ) from error
        except OSError as error:
            raise ConfigError(
                f"output_dir={self.where!r}: cannot write its state to {self.state}: {error}; check the permissions, "
                "or set HUNYUAN_LOCAL_STATE_DIR"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def names(self) -> set[str]:
        """Names of all non-empty files at the destination.

        Raises:
            VideoError: the destination cannot be read.
        """
        with self._translated(""):
            found = self._files.ls(self._root, detail=True)
        return {posixpath.basename(item["name"]) for item in found if item["type"] == "file" and item["size"]}

    def deliver(self, video: Path, name: str) -> None:
        """Move a finished file to the destination; delete the local file only once the copy is complete.

        Raises:
            VideoError: the transfer failed; the local file stays.
        """
        with self._translated(name):
            if self.is_local:
                os.replace(video, self._path(name))  # an atomic rename: the state is in the same folder
                sync_names(Path(self._root))
                return
            size = video.stat().st_size
            self._files.put_file(str(video), self._path(name))
            self._files.invalidate_cache()
            if (found := self._files.info(self._path(name))["size"]) != size:
                raise OSError(f"only {found} of {size} bytes arrived")
            with contextlib.suppress(OSError):  # the video has arrived regardless
                video.unlink()

    def location(self, name: str) -> str:
        """The path or URL of a video, for messages and reports."""
        return self._path(name) if self.is_local else self._files.unstrip_protocol(self._path(name))

    def _path(self, name: str) -> str:
        return posixpath.join(self._root, name)

    def _check(self) -> None:
        """Write and delete a small file, to fail now rather than after hours of work."""
        probe = self._path(f".hunyuan-local-{secrets.token_hex(4)}")
        try:
            self._files.makedirs(self._root, exist_ok=True)
            with self._files.open(probe, "wb") as file:
                file.write(b"x")
            self._files.rm_file(probe)
        except Exception as error:  # every fsspec backend raises its own types
            raise ConfigError(
                f"output_dir={self.where!r}: not writable: {_text_of(error)}; choose another folder, or check its "
                "permissions and your credentials"
            ) from error

    @contextlib.contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        """Turn any error into a VideoError: every fsspec backend raises its own types."""
        try:
            yield
        except Exception as error:
            raise VideoError(f"{self.location(name)}: {_text_of(error)}; run the same command to try again") from error


def _text_of(error: Exception) -> str:
    return str(error).strip() or type(error).__name__


def _filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    protocol = url.split("://", 1)[0]
    try:
        found: tuple[fsspec.AbstractFileSystem, str] = fsspec.core.url_to_fs(url)
        return found
    except ImportError as error:
        raise ConfigError(f"output_dir={url!r}: {error}; install the package for {protocol}://") from error
    except Exception as error:
        known = ", ".join(sorted(fsspec.available_protocols()))
        raise ConfigError(f"output_dir={url!r}: {error}; give a folder, or a URL of one of: {known}") from error
