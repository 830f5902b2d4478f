"""The interface of the job store for workers, local or remote."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from ..schema import FailureKind, GenerationRequest, JobStatus, Progress
from .job import Job
from .worker_reports import WorkerReport


class ReportStore(Protocol):
    """Where workers report; see :class:`.worker_reports.WorkerReports`. Its methods raise ``StoreError``."""

    def report(self, report: WorkerReport) -> None:
        """Store a worker's report, with the current time."""
        ...

    def leave(self, name: str) -> None:
        """Delete the report of a worker that has ended."""
        ...


class WorkerStore(Protocol):
    """The job store as workers use it: the SQLite file (:class:`.store.JobStore`), or from another machine a proxy
    through Ray (:class:`.ray_workers.remote_store.RemoteStore`).

    A worker owns a job by its name and the attempt number. Methods that return whether the worker still owns the job
    change nothing if it does not. Every method may raise ``StoreError``.
    """

    @property
    def worker_reports(self) -> ReportStore:
        """Where the worker reports its state."""
        ...

    def claim(self, worker: str, model: str, lease_s: float) -> Job | None:
        """Claim the oldest waiting job for ``model`` for ``lease_s`` seconds; None if none is waiting."""
        ...

    def beat(self, job: Job, lease_s: float, progress: Progress | None = None) -> bool:
        """Renew the lease and report progress; False if the worker should stop: job cancelled, or lease lost."""
        ...

    def rewritten(self, job: Job, request: GenerationRequest) -> bool:
        """Store a running job's rewritten prompt; returns whether the worker still owns the job."""
        ...

    def succeed(self, job: Job, result: dict[str, Any]) -> bool:
        """Finish a job whose video is in the data folder; returns whether the worker still owned it."""
        ...

    def fail(self, job: Job, error: str, failure: FailureKind = "execution") -> bool:
        """End a job that cannot succeed; returns as :meth:`succeed`."""
        ...

    def stopped(self, job: Job, why: str = "cancelled") -> bool:
        """End a job that was cancelled or set aside; returns as :meth:`succeed`."""
        ...

    def give_back(self, job: Job) -> bool:
        """Put an unfinished job back into the queue without counting the attempt; returns as :meth:`succeed`."""
        ...

    def release(self, job: Job, error: str) -> bool:
        """Put a job back into the queue after a temporary failure, or fail it after the last attempt."""
        ...

    def get(self, job_id: str) -> Job | None:
        """One job, or None if there is no such job."""
        ...

    def find(
        self, *, statuses: Collection[JobStatus] = (), model: str | None = None, limit: int = 100
    ) -> Sequence[Job]:
        """The newest jobs of ``model`` with one of ``statuses``; empty means all statuses."""
        ...

    def expire(self) -> Sequence[Job]:
        """Release the jobs whose lease has expired."""
        ...

    def wait_for_change(self, ended: Callable[[], bool], limit_s: float) -> None:
        """Return when the store may have changed, when ``ended()`` is true, or after ``limit_s`` seconds."""
        ...

    def close(self) -> None:
        """Close this thread's resources."""
        ...
