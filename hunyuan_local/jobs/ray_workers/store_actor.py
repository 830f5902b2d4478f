"""The owner's side of remote replicas: job store calls, and the files that replicas send.

Runs in a separate process on the machine with the data folder. Files are accepted only from the current owner of a
job, and are written completely or not at all. Reads file pieces from Ray's object store; does not know the replicas.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...durable import replacing
from ...errors import StoreError
from ...schema import GenerationRequest
from ..folder import DataFolder
from ..job import Job
from ..worker_reports import WorkerReport

Files = dict[str, bytes]  # file name -> content, for the files of one folder


class StoreActor:
    """The jobs and files of one data folder, for workers on other machines; methods may run concurrently.

    Args:
        root: the data folder.
        log_dir: folder for the workers' logs; None if Ray forwards them instead.
    """

    def __init__(self, root: Path, log_dir: Path | None = None):
        self._folder, self._log_dir = DataFolder(root), log_dir
        self._store = self._folder.store()
        self._writing = threading.Lock()

    def __repr__(self) -> str:
        return "store"  # Ray's prefix for this actor's log lines

    def ask(self, method: str, *values: Any, **named: Any) -> Any:
        """Call a method of :class:`~hunyuan_local.jobs.store.JobStore` and return its result.

        Raises:
            StoreError: the store cannot be used.
        """
        return getattr(self._store, method)(*values, **named)

    def report(self, report: WorkerReport) -> None:
        """Store a worker's report, with the current time."""
        self._store.worker_reports.report(report)

    def leave(self, name: str) -> None:
        """Delete the report of a worker that has ended."""
        self._store.worker_reports.leave(name)

    def log(self, label: str, line: str) -> None:
        """Append a line to a worker's log; does nothing without a log folder."""
        if self._log_dir is None:
            return
        self._log_dir.mkdir(parents=True, exist_ok=True)
        with (self._log_dir / f"{label}.log").open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def free_bytes(self) -> int:
        """Free space on the data folder's disk."""
        return self._folder.free_bytes()

    def claim(self, worker: str, model: str, lease_s: float) -> tuple[Job, Files] | None:
        """Claim the oldest waiting job; returns it with the files of its saved state, or None."""
        job = self._store.claim(worker, model, lease_s)
        if job is None:
            return None
        with self._writing:
            folder = self._folder.unfinished(job)
            found = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
            return job, {path.name: path.read_bytes() for path in found}

    def with_image(self, request: GenerationRequest) -> GenerationRequest:
        """Return a request with the content of its input image; see :meth:`..folder.DataFolder.with_image`."""
        request = self._folder.with_image(request)
        assert request.image is not None  # only such requests are sent here
        return request.replace(image=request.image.with_content(request.image.content()))

    def save(self, job: Job, files: Files) -> bool:
        """Store the saved state of a job; False without any change if the worker no longer owns the job.

        Raises:
            StoreError: the state cannot be written.
        """
        with self._writing:
            if not self._holds(job):
                return False
            folder = self._folder.unfinished(job)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                for name, content in files.items():
                    with replacing(folder / Path(name).name) as partial:
                        partial.write_bytes(content)
            except OSError as error:
                raise StoreError(f"{folder}: cannot save the state of a video: {error}; check the disk") from error
            return True

    def succeed(self, job: Job, result: dict[str, Any], pieces: Sequence[Any]) -> bool:
        """Store the video, then finish the job; False without any change if the worker no longer owns the job.

        Args:
            pieces: references to consecutive pieces of the file in Ray's object store.

        Raises:
            StoreError: the video cannot be written.
        """
        import ray

        with self._writing:
            if not self._holds(job):
                return False
            video = self._folder.video(job)
            try:
                with replacing(video) as partial, partial.open("wb") as file:
                    for piece in pieces:
                        file.write(ray.get(piece))
            except OSError as error:
                raise StoreError(f"{video}: the video cannot be written: {error}; check the disk") from error
            if not self._store.succeed(job, result):
                return False
            shutil.rmtree(self._folder.unfinished(job), ignore_errors=True)
            return True

    def _holds(self, job: Job) -> bool:
        """Whether the worker and attempt in ``job`` still own it."""
        now = self._store.get(job.job_id)
        return now is not None and (now.status, now.worker, now.attempts) == ("running", job.worker, job.attempts)
