"""A worker's signs of life: the lease prolonged, progress reported, cancellations seen, the roster kept.

A thread beside the work. Where the store cannot be written for a while it goes on trying: the lease
may end meanwhile, and then the store, not this thread, decides.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator

from ..backends.base import GenerationContext
from ..backends.local import LocalBackend
from ..errors import StoreError
from ..schema import Progress
from .job import Job
from .roster import WorkerReport
from .store import JobStore

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_REPORTS = 5.0


class Pulse:
    """Beats while it is entered; a job that is held is kept alive, and its context told to stop."""

    def __init__(self, store: JobStore, name: str, backend: LocalBackend, *, lease_s: float, beat_s: float):
        self._store, self._name, self._backend = store, name, backend
        self._lease_s, self._beat_s = lease_s, beat_s
        self._roster = store.roster
        self._state, self._note = "loading", ""
        self._held: tuple[Job, GenerationContext] | None = None
        self._progress: Progress | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_ended, name="pulse", daemon=True)

    def __enter__(self) -> Pulse:
        self._report()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(StoreError):  # nothing depends on it: the report grows old by itself
            self._roster.leave(self._name)

    def idle(self) -> None:
        """The model is loaded, and no job is at work."""
        self._set("idle")

    def wait_for(self, what: str) -> None:
        """No job is taken until something passes."""
        self._set("waiting", what)

    @contextlib.contextmanager
    def holding(self, job: Job, context: GenerationContext) -> Iterator[None]:
        """Keep ``job`` alive; ``context.cancel`` is set as soon as it is cancelled, or no longer this worker's."""
        context.on_progress = self._note_progress
        self._progress = None
        with self._lock:
            self._held = (job, context)
        self._set("working", job.job_id)
        try:
            yield
        finally:
            with self._lock:  # a beat that is under way ends first
                self._held = None

    def _note_progress(self, progress: Progress) -> None:
        self._progress = progress

    def _set(self, state: str, note: str = "") -> None:
        if (state, note) != (self._state, self._note):
            self._state, self._note = state, note
            self._report()

    def _beat_until_ended(self) -> None:
        since_report = 0.0
        while not self._ended.wait(self._beat_s):
            with self._lock:
                if self._held is not None:
                    self._beat(*self._held)
            since_report += self._beat_s
            if since_report >= _SECONDS_BETWEEN_REPORTS:
                since_report = 0.0
                self._report()
        self._store.close()

    def _beat(self, job: Job, context: GenerationContext) -> None:
        try:
            if not self._store.beat(job, self._lease_s, self._progress):
                context.cancel.set()
        except StoreError as error:
            logger.warning("job %s: no sign of life could be given: %s", job.job_id, error)

    def _report(self) -> None:
        try:
            memory = self._backend.memory()
            self._roster.report(
                WorkerReport(
                    name=self._name,
                    pid=os.getpid(),
                    model=self._backend.config.identity,
                    device=self._backend.device,
                    state=self._state,
                    note=self._note,
                    memory_bytes=memory and memory[0],
                    memory_total_bytes=memory and memory[1],
                )
            )
        except StoreError as error:
            logger.warning("the worker's report could not be written: %s", error)
        except RuntimeError as error:  # a broken device cannot say its memory; the work itself will fail of it
            logger.warning("the worker's device does not answer: %s", error)
