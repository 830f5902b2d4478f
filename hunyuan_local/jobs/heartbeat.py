"""A worker's heartbeat: renews leases, reports progress, notices cancellations, and writes the worker's report.

Runs in a thread next to the work. While the store is not writable, it keeps trying; if the lease expires meanwhile,
the store decides who owns the job.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from dataclasses import dataclass

from ..backends.base import Backend, GenerationContext
from ..errors import StoreError
from ..schema import Progress
from .job import Job
from .store_protocol import WorkerStore
from .worker_reports import WorkerReport, WorkerState

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_REPORTS = 5.0


@dataclass
class _Held:
    """A job in progress, or one waiting for its file, with its latest progress."""

    job: Job
    context: GenerationContext
    progress: Progress | None = None

    def note(self, progress: Progress) -> None:
        self.progress = progress


class Heartbeat:
    """Runs while entered as a context manager: renews the lease of each held job, and cancels its context if lost."""

    def __init__(self, store: WorkerStore, name: str, backend: Backend, *, lease_s: float, beat_s: float):
        self._store, self._name, self._backend = store, name, backend
        self._lease_s, self._beat_s = lease_s, beat_s
        self._worker_reports = store.worker_reports
        self._state: WorkerState = "loading"
        self._note = ""
        self._held: dict[str, _Held] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_ended, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._report()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(StoreError):  # the report expires anyway
            self._worker_reports.leave(self._name)

    def idle(self) -> None:
        """Report that the model is loaded and no job is running."""
        self._set("idle")

    def prepare(self, what: str) -> None:
        """Report that the model is loading; ``what`` describes the progress."""
        self._set("loading", what)

    def wait_for(self, what: str) -> None:
        """Report that the worker takes no jobs until ``what`` has passed."""
        self._set("waiting", what)

    def hold(self, job: Job, context: GenerationContext) -> None:
        """Renew the lease of ``job``; set ``context.cancel`` once it is cancelled or owned by another worker."""
        held = _Held(job, context)
        context.on_progress = held.note
        with self._lock:
            self._held[job.job_id] = held
        self._set("working", job.job_id)

    def let_go(self, job: Job) -> None:
        """Stop renewing: the job has finished or is back in the queue."""
        with self._lock:  # waits for a heartbeat in progress
            self._held.pop(job.job_id, None)

    def _set(self, state: WorkerState, note: str = "") -> None:
        if (state, note) != (self._state, self._note):
            self._state, self._note = state, note
            self._report()

    def _beat_until_ended(self) -> None:
        since_report = 0.0
        while not self._ended.wait(self._beat_s):
            with self._lock:
                for held in self._held.values():
                    self._beat(held)
            since_report += self._beat_s
            if since_report >= _SECONDS_BETWEEN_REPORTS:
                since_report = 0.0
                self._report()
        self._store.close()

    def _beat(self, held: _Held) -> None:
        try:
            if not self._store.beat(held.job, self._lease_s, held.progress):
                found = self._store.get(held.job.job_id)
                # If the job was lost rather than cancelled, such as after the machine was suspended, keep the
                # service's task: the job's next worker resumes it.
                held.context.keep_remote = found is not None and not found.cancel_requested
                held.context.cancel.set()
        except StoreError as error:
            logger.warning("job %s: heartbeat failed: %s", held.job.job_id, error)

    def _report(self) -> None:
        try:
            memory = self._backend.memory()
            self._worker_reports.report(
                WorkerReport(
                    name=self._name,
                    pid=os.getpid(),
                    model=self._backend.identity,
                    device=self._backend.device,
                    state=self._state,
                    note=self._note,
                    memory_bytes=memory and memory[0],
                    memory_total_bytes=memory and memory[1],
                )
            )
        except StoreError as error:
            logger.warning("the worker's report could not be written: %s", error)
        except RuntimeError as error:  # a broken device cannot report its memory; the job will fail for the same reason
            logger.warning("the worker's device does not answer: %s", error)
