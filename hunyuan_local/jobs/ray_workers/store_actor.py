"""The owner's side of replicas on other machines: what they ask of the job store, and the files that they send.

Runs in a process of its own beside the data folder. A file is taken from whoever holds its job, and from nobody
else, and is whole or not there. Knows how to take pieces out of Ray's object store, but not who runs where.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...durable import replacing
from ...errors import StoreError
from ..folder import DataFolder
from ..job import Job
from ..worker_reports import WorkerReport

Files = dict[str, bytes]  # the content of each file of a folder


class StoreActor:
    """The jobs and files of one data folder, for workers that cannot reach them; its methods may run at once.

    Args:
        root: of the data folder.
        log_dir: for what they log; None where that takes another way.
    """

    def __init__(self, root: Path, log_dir: Path | None = None):
        self._folder, self._log_dir = DataFolder(root), log_dir
        self._store = self._folder.store()
        self._writing = threading.Lock()

    def __repr__(self) -> str:
        return "store"  # in the log, in front of what is said here

    def ask(self, method: str, *values: Any, **named: Any) -> Any:
        """What a method of the :class:`~hunyuan_local.jobs.store.JobStore` returns.

        Raises:
            StoreError: the store cannot be used.
        """
        return getattr(self._store, method)(*values, **named)

    def report(self, report: WorkerReport) -> None:
        """See :meth:`hunyuan_local.jobs.worker_reports.WorkerReports.report`."""
        self._store.worker_reports.report(report)

    def leave(self, name: str) -> None:
        """See :meth:`hunyuan_local.jobs.worker_reports.WorkerReports.leave`."""
        self._store.worker_reports.leave(name)

    def log(self, label: str, line: str) -> None:
        """Add a line to a worker's log in the folder for these; nothing without such a folder."""
        if self._log_dir is None:
            return
        self._log_dir.mkdir(parents=True, exist_ok=True)
        with (self._log_dir / f"{label}.log").open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def free_bytes(self) -> int:
        """What is free on the data folder's disk."""
        return self._folder.free_bytes()

    def claim(self, worker: str, model: str, lease_s: float) -> tuple[Job, Files] | None:
        """The oldest waiting job, as :meth:`JobStore.claim`, with the files of its saved state."""
        job = self._store.claim(worker, model, lease_s)
        if job is None:
            return None
        with self._writing:
            folder = self._folder.unfinished(job)
            found = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
            return job, {path.name: path.read_bytes() for path in found}

    def save(self, job: Job, files: Files) -> bool:
        """Keep the saved state of a job; False, and nothing is changed, if it is no longer this worker's.

        Raises:
            StoreError: it cannot be written.
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
                raise StoreError(f"{folder}: the state of a video cannot be kept: {error}; check the disk") from error
            return True

    def succeed(self, job: Job, result: dict[str, Any], pieces: Sequence[Any]) -> bool:
        """Take the video, then finish the job; False, and nothing is changed, if it is no longer this worker's.

        Args:
            pieces: references to the bytes of the file, one after the other, in Ray's object store.

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
        """Whether the job is still the one of whoever was given this."""
        now = self._store.get(job.job_id)
        return now is not None and (now.status, now.worker, now.attempts) == ("running", job.worker, job.attempts)
