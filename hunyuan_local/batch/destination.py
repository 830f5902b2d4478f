"""Where the videos of a batch go: a folder, or any place that fsspec knows, and where its state is kept meanwhile.

Knows nothing about requests or jobs.
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
    """The place of the finished videos, found usable when this is made.

    Args:
        where: a folder, which is made if it is not there, or a URL such as ``s3://bucket/folder``.

    Attributes:
        state: a local folder for jobs and unfinished videos: in the folder itself, or by the URL in
            ``$HUNYUAN_LOCAL_STATE_DIR/batches``.

    Raises:
        ConfigError: it cannot be written, or what its protocol needs is not installed.
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
        """Keep other processes from working on the batch.

        Raises:
            ConfigError: another one does, or the folder of the state cannot be written.
        """
        lock = FileLock(self.state / "batch.lock", timeout=0)
        try:
            self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock.acquire()
        except Timeout as error:
            raise ConfigError(
                f"output_dir={self.where!r}: another process works on this batch; wait for it, or stop it"
            ) from error
        except OSError as error:
            raise ConfigError(
                f"output_dir={self.where!r}: its state cannot be kept in {self.state}: {error}; check the permissions, "
                "or set HUNYUAN_LOCAL_STATE_DIR"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def names(self) -> set[str]:
        """The names of all files that are there and not empty.

        Raises:
            VideoError: the place does not answer.
        """
        with self._translated(""):
            found = self._files.ls(self._root, detail=True)
        return {posixpath.basename(item["name"]) for item in found if item["type"] == "file" and item["size"]}

    def deliver(self, video: Path, name: str) -> None:
        """Bring a finished video to its place; the local file is gone only when it is there whole.

        Raises:
            VideoError: it cannot be brought there; the local file stays.
        """
        with self._translated(name):
            if self.is_local:
                os.replace(video, self._path(name))  # the state lies in the same folder
                sync_names(Path(self._root))
                return
            size = video.stat().st_size
            self._files.put_file(str(video), self._path(name))
            self._files.invalidate_cache()
            if (found := self._files.info(self._path(name))["size"]) != size:
                raise OSError(f"{found} of {size} bytes have arrived")
            video.unlink()

    def location(self, name: str) -> str:
        """The path or URL of a video, for people and for a report."""
        return self._path(name) if self.is_local else self._files.unstrip_protocol(self._path(name))

    def _path(self, name: str) -> str:
        return posixpath.join(self._root, name)

    def _check(self) -> None:
        """Write a small file and delete it: better refused now than after a night of work."""
        probe = self._path(f".hunyuan-local-{secrets.token_hex(4)}")
        try:
            self._files.makedirs(self._root, exist_ok=True)
            with self._files.open(probe, "wb") as file:
                file.write(b"x")
            self._files.rm_file(probe)
        except Exception as error:  # each file system has errors of its own
            raise ConfigError(
                f"output_dir={self.where!r}: cannot be written: {_words(error)}; choose another folder, or check its "
                "permissions and your credentials"
            ) from error

    @contextlib.contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        """Each file system has errors of its own; here they become ours."""
        try:
            yield
        except Exception as error:
            raise VideoError(f"{self.location(name)}: {_words(error)}; the same command tries it again") from error


def _words(error: Exception) -> str:
    return str(error).strip() or type(error).__name__


def _filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    protocol = url.split("://", 1)[0]
    try:
        found: tuple[fsspec.AbstractFileSystem, str] = fsspec.core.url_to_fs(url)
        return found
    except ImportError as error:
        raise ConfigError(f"output_dir={url!r}: {error}; install what {protocol}:// needs") from error
    except Exception as error:
        known = ", ".join(sorted(fsspec.available_protocols()))
        raise ConfigError(f"output_dir={url!r}: {error}; give a folder, or a URL of one of: {known}") from error
