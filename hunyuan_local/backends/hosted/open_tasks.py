"""Tasks at hosted services that are not finished, remembered on disk from before their submission.

One small JSON file a job, and a lock beside it that is held by the process that works on it; both
are gone once the video is there. So a crash at any moment leaves either a task that can be
continued, or the knowledge that one may exist. Knows nothing about services or the network.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict

from ...config import SafetyConfig, state_dir
from ...config.places import known_state_dir
from ...durable import replacing
from ...errors import ConfigError, HunyuanLocalError
from ...json_text import from_json_text, json_text
from ...schema import GenerationRequest


class OpenTask(BaseModel):
    """One task that was, or may have been, submitted.

    ``remote_id`` is None from before the submission until its answer: found like that, the answer
    was lost. ``request`` is what was sent, its seed included, and ``fingerprint`` what was asked. ``safety`` is
    the check that was wanted, which whoever fetches the video keeps to.
    """

    model_config = ConfigDict(frozen=True)

    job_id: str
    fingerprint: str
    backend: str
    base_url: str
    request: GenerationRequest
    output: Path
    overwrite: bool
    notes: list[str]
    created_at: datetime
    submit_s: float = 0.0
    remote_id: str | None = None
    safety: SafetyConfig = SafetyConfig()


def fingerprint(backend: str, base_url: str, request: GenerationRequest, output: Path | None) -> str:
    """The same for the same command given again, before any seed is drawn or name chosen."""
    where = "" if output is None else os.path.abspath(output)
    text = json.dumps([backend, base_url, request.model_dump(), where], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class OpenTasks:
    """The open jobs of this user.

    Args:
        folder: None is ``$HUNYUAN_LOCAL_STATE_DIR/hosted``, or that of the system's convention,
            such as ``~/.local/state/hunyuan-local/hosted``.
    """

    def __init__(self, folder: Path | None = None):
        self._given = folder

    @property
    def folder(self) -> Path:
        """Where they are remembered.

        Raises:
            ConfigError: there is no home folder, and no variable names another.
        """
        return self._given or state_dir() / "hosted"

    def jobs(self) -> list[OpenTask]:
        """All open jobs, the oldest first; a damaged file is an error that names it."""
        nowhere = self._given is None and known_state_dir() is None
        jobs = [] if nowhere or not os.path.isdir(self.folder) else [*map(self._read, self.folder.glob("*.json"))]
        return sorted((job for job in jobs if job is not None), key=lambda job: job.created_at)

    def find(self, name: str) -> OpenTask:
        """The job with that id, here or at the service; the beginning of an id is enough if unique.

        Raises:
            ConfigError: none, or several.
        """
        jobs = self.jobs()
        found = [job for job in jobs if name in (job.job_id, job.remote_id)]
        found = found or [j for j in jobs if j.job_id.startswith(name) or (j.remote_id or "").startswith(name)]
        if len(found) != 1:
            open_ones = ", ".join(job.job_id for job in jobs) or "none"
            problem = "fits several jobs" if found else "is not an open job; a finished one is forgotten"
            raise ConfigError(f"job {name!r}: {problem}; open are: {open_ones}")
        return found[0]

    def new_id(self) -> str:
        """A name for a new job."""
        return secrets.token_hex(4)

    def save(self, job: OpenTask) -> None:
        """Write a job down, durably, before going on.

        Raises:
            ConfigError: the folder cannot be written.
        """
        path = self._path(job.job_id)
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with replacing(path, mode=0o600) as partial:  # prompts are nobody else's business
                partial.write_text(json_text(job, indent=1), encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"{self.folder}: cannot be written: {error}; without it a paid task could be lost; make it "
                "writable, or set HUNYUAN_LOCAL_STATE_DIR to another folder"
            ) from error

    def forget(self, job: OpenTask) -> None:
        """Remove a job that is finished or given up."""
        self._path(job.job_id).unlink(missing_ok=True)
        self._lock_path(job.job_id).unlink(missing_ok=True)

    def is_free(self, job: OpenTask) -> bool:
        """Whether no live process works on the job."""
        try:
            with self._lock(job.job_id, 0):
                return True
        except Timeout:
            return False

    @contextmanager
    def hold(self, job_id: str) -> Iterator[None]:
        """Keep other processes from working on a job.

        Raises:
            ConfigError: another one does, or the folder cannot be written.
        """
        try:
            with self._lock(job_id, 0):
                yield
        except Timeout as error:
            raise ConfigError(f"job {job_id}: another process works on it; wait for it, or stop it") from error

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let one process at a time look for an open job and write down a new one."""
        with self._lock("ledger", -1):  # the name of its file, which versions share
            yield

    def _read(self, path: Path) -> OpenTask | None:
        try:
            # JSON mode: paths and times stand as text in the file.
            return from_json_text(OpenTask, path.read_text(encoding="utf-8"))
        except FileNotFoundError:  # finished a moment ago by another process
            return None
        except (OSError, ValueError, HunyuanLocalError) as error:
            raise ConfigError(f"{path}: the record of an open job is damaged: {error}; delete it to give up") from error

    @contextmanager
    def _lock(self, name: str, timeout_s: float) -> Iterator[None]:
        lock = FileLock(self._lock_path(name), timeout=timeout_s)
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock.acquire()
        except Timeout:
            raise
        except OSError as error:
            raise ConfigError(f"{self.folder}: cannot be written: {error}; set HUNYUAN_LOCAL_STATE_DIR to another "
                              "folder") from error  # fmt: skip
        try:
            yield
        finally:
            lock.release()

    def _path(self, job_id: str) -> Path:
        return self.folder / f"{job_id}.json"

    def _lock_path(self, job_id: str) -> Path:
        return self.folder / f"{job_id}.lock"
