"""Unfinished tasks at hosted services, recorded on disk before they are submitted.

Each job has a small JSON file and a lock file, which the process working on the job holds; both are deleted once the
video is complete. A crash at any moment therefore leaves either a task that can be resumed or a record that one may
exist. Does not depend on services or the network.
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

    ``remote_id`` is None until the answer to the submission arrives; if no process works on the job, the answer was
    lost. ``request`` is the request as sent, including its seed; ``fingerprint`` identifies the request as the user
    made it. ``safety`` is the safety check to apply when the video is downloaded.
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
    """A hash that is equal for the same command run again; computed before a seed or a file name is chosen."""
    where = "" if output is None else os.path.abspath(output)
    text = json.dumps([backend, base_url, request.model_dump(mode="json"), where], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class OpenTasks:
    """The open jobs of this user.

    Args:
        folder: None uses ``$HUNYUAN_LOCAL_STATE_DIR/hosted``, or by default the standard folder of the system, such
            as ``~/.local/state/hunyuan-local/hosted``.
    """

    def __init__(self, folder: Path | None = None):
        self._given = folder

    @property
    def folder(self) -> Path:
        """The folder of the job files.

        Raises:
            ConfigError: there is no home folder, and no environment variable names another folder.
        """
        return self._given or state_dir() / "hosted"

    def jobs(self) -> list[OpenTask]:
        """All open jobs, oldest first.

        Raises:
            ConfigError: a job file is damaged.
        """
        nowhere = self._given is None and known_state_dir() is None
        jobs = [] if nowhere or not os.path.isdir(self.folder) else [*map(self._read, self.folder.glob("*.json"))]
        return sorted((job for job in jobs if job is not None), key=lambda job: job.created_at)

    def find(self, name: str) -> OpenTask:
        """The job with this job id or remote id; a unique prefix is enough.

        Raises:
            ConfigError: no job matches, or several do.
        """
        jobs = self.jobs()
        found = [job for job in jobs if name in (job.job_id, job.remote_id)]
        found = found or [j for j in jobs if j.job_id.startswith(name) or (j.remote_id or "").startswith(name)]
        if len(found) != 1:
            open_ones = ", ".join(job.job_id for job in jobs) or "none"
            problem = "matches several jobs" if found else "not an open job; finished jobs are not listed"
            raise ConfigError(f"job {name!r}: {problem}; open jobs: {open_ones}")
        return found[0]

    def new_id(self) -> str:
        """A random id for a new job."""
        return secrets.token_hex(4)

    def save(self, job: OpenTask) -> None:
        """Write a job to disk durably before returning.

        Raises:
            ConfigError: the folder cannot be written.
        """
        path = self._path(job.job_id)
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with replacing(path, mode=0o600) as partial:  # prompts are private
                partial.write_text(json_text(job, indent=1), encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"{self.folder}: cannot be written: {error}; it is needed so that no paid task is lost; make it "
                "writable, or set HUNYUAN_LOCAL_STATE_DIR to another folder"
            ) from error

    def forget(self, job: OpenTask) -> None:
        """Delete the record of a job that is finished or abandoned."""
        self._path(job.job_id).unlink(missing_ok=True)
        self._lock_path(job.job_id).unlink(missing_ok=True)

    def is_free(self, job: OpenTask) -> bool:
        """Whether no running process works on the job."""
        try:
            with self._lock(job.job_id, 0):
                return True
        except Timeout:
            return False

    @contextmanager
    def hold(self, job_id: str) -> Iterator[None]:
        """Lock a job, so that other processes cannot work on it.

        Raises:
            ConfigError: another process has locked it, or the folder cannot be written.
        """
        try:
            with self._lock(job_id, 0):
                yield
        except Timeout as error:
            raise ConfigError(f"job {job_id}: another process is working on it; wait for it, or stop it") from error

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the folder, so that one process at a time looks for an open job and records a new one."""
        with self._lock("ledger", -1):  # the file name must not change: versions of this package share it
            yield

    def _read(self, path: Path) -> OpenTask | None:
        try:
            # JSON mode: paths and times are text in the file.
            return from_json_text(OpenTask, path.read_text(encoding="utf-8"))
        except FileNotFoundError:  # another process has just finished the job
            return None
        except (OSError, ValueError, HunyuanLocalError) as error:
            raise ConfigError(
                f"{path}: the record of an open job is damaged: {error}; delete it to give up the job"
            ) from error

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
