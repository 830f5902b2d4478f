"""What a worker asks of the store of its jobs, wherever that is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from ..schema import FailureKind, GenerationRequest, JobStatus, Progress
from .job import Job
from .worker_reports import WorkerReport


class ReportStore(Protocol):
    """Where a worker reports; see :class:`.worker_reports.WorkerReports`. Its methods raise a ``StoreError``."""

    def report(self, report: WorkerReport) -> None:
        """Write down what a worker says; the time is now."""
        ...

    def leave(self, name: str) -> None:
        """A worker has ended."""
        ...


class WorkerStore(Protocol):
    """The jobs as a worker has them: from the SQLite file (:class:`.store.JobStore`) or, from another machine, through
    Ray (:class:`.ray_workers.remote_store.RemoteStore`).

    A worker holds a job by its name and the number of the attempt. Where a method returns whether the job is still
    this worker's, nothing has changed if it is not. Every method may raise a ``StoreError``.
    """

    @property
    def worker_reports(self) -> ReportStore:
        """Where the worker says what it does."""
        ...

    def claim(self, worker: str, model: str, lease_s: float) -> Job | None:
        """The oldest waiting job for ``model``, now this worker's for ``lease_s`` seconds; None if none waits."""
        ...

    def beat(self, job: Job, lease_s: float, progress: Progress | None = None) -> bool:
        """Prolong the lease and report; False if the worker should stop: cancelled, or the job is another's."""
        ...

    def rewritten(self, job: Job, request: GenerationRequest) -> bool:
        """Keep a running job's request with its prompt rewritten; whether the job is still this worker's."""
        ...

    def succeed(self, job: Job, result: dict[str, Any]) -> bool:
        """Finish a job whose video is in the data folder; whether it was still this worker's."""
        ...

    def fail(self, job: Job, error: str, failure: FailureKind = "execution") -> bool:
        """End a job that cannot be done; as :meth:`succeed`."""
        ...

    def stopped(self, job: Job, why: str = "cancelled") -> bool:
        """The worker has stopped on request, or has set the job aside; as :meth:`succeed`."""
        ...

    def give_back(self, job: Job) -> bool:
        """Return a job that was not worked to its end, without counting the attempt; as :meth:`succeed`."""
        ...

    def release(self, job: Job, error: str) -> bool:
        """Return a job that failed for what may pass: to be run again, or failed after the last attempt."""
        ...

    def get(self, job_id: str) -> Job | None:
        """One job, or None."""
        ...

    def find(
        self, *, statuses: Collection[JobStatus] = (), model: str | None = None, limit: int = 100
    ) -> Sequence[Job]:
        """The newest jobs of these statuses, all if empty, and of this model."""
        ...

    def expire(self) -> Sequence[Job]:
        """Take jobs from workers whose lease has ended."""
        ...

    def wait_for_change(self, ended: Callable[[], bool], limit_s: float) -> None:
        """Return when anything may have changed, when ``ended`` says so, or after ``limit_s`` seconds."""
        ...

    def close(self) -> None:
        """Close what this thread has open."""
        ...
