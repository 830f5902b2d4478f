"""Jobs in one SQLite file: enqueued, claimed under a lease, and finished exactly once, even if processes die.

Every change is one SQL statement, so any number of processes on one machine can share the file. A worker owns a job
by its name and the attempt number; after losing the lease it can neither report progress nor finish the job.
Independent of models, dialects and the network.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from ..errors import QueueFullError
from ..schema import FailureKind, GenerationRequest, JobStatus, Progress
from .database import Database
from .job import FINISHED, Job, read_job
from .worker_reports import WorkerReports


class JobStore:
    """The jobs of one data folder.

    Args:
        path: the SQLite file; created if it does not exist.
        clock: seconds since 1970.

    Raises:
        StoreError: the file is damaged, not a job store, or not writable; it is not changed.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time):
        self.database = Database(path, clock)
        self.worker_reports = WorkerReports(self.database)

    def enqueue(
        self,
        request: GenerationRequest,
        model: str,
        origin: dict[str, Any] | None = None,
        *,
        webhook: str | None = None,
        max_attempts: int = 3,
        max_queue: int | None = None,
    ) -> Job:
        """Add a job for workers that run ``model``; it is on disk when this returns.

        Raises:
            QueueFullError: ``max_queue`` jobs are already waiting for this model.
        """
        values = {
            "job_id": _new_id(),
            "model": model,
            "request": request.model_dump_json(),
            "origin": json.dumps(origin or {}),
            "max_attempts": max_attempts,
            "now": self._now(),
            "webhook": webhook,
            "state": None if webhook is None else "waiting",
            "max_queue": max_queue,
        }
        rows = self._run(
            """INSERT INTO jobs (job_id, model, request, origin, max_attempts, created_at, webhook, webhook_state)
               SELECT :job_id, :model, :request, :origin, :max_attempts, :now, :webhook, :state
               WHERE :max_queue IS NULL
                   OR (SELECT COUNT(*) FROM jobs WHERE status = 'queued' AND model = :model) < :max_queue
               RETURNING *""",
            values,
        )
        if not rows:
            raise QueueFullError(f"the queue is full: {max_queue} jobs are waiting; try again later")
        return rows[0]

    def claim(self, worker: str, model: str, lease_s: float) -> Job | None:
        """Claim the oldest waiting job for ``model`` for ``lease_s`` seconds; None if none is waiting."""
        now = self._now()
        rows = self._run(
            """UPDATE jobs SET status = 'running', worker = :worker, lease_until = :now + :lease_s,
                   lease_s = :lease_s, attempts = attempts + 1, started_at = COALESCE(started_at, :now), progress = NULL
               WHERE number = (SELECT number FROM jobs WHERE status = 'queued' AND model = :model
                               ORDER BY number LIMIT 1)
               RETURNING *""",
            {"worker": worker, "model": model, "lease_s": lease_s, "now": now},
        )
        return rows[0] if rows else None

    def beat(self, job: Job, lease_s: float, progress: Progress | None = None) -> bool:
        """Renew the lease and report progress; False if the worker should stop: job cancelled, or lease lost."""
        rows = self._run(
            """UPDATE jobs SET lease_until = ?, progress = COALESCE(?, progress)
               WHERE job_id = ? AND status = 'running' AND worker = ? AND attempts = ? RETURNING *""",
            (self._now() + lease_s, progress and progress.model_dump_json(), *self._hold(job)),
            durable=False,  # a power cut ends the worker too
        )
        return bool(rows) and not rows[0].cancel_requested

    def rewritten(self, job: Job, request: GenerationRequest) -> bool:
        """Store a running job's rewritten prompt, so that a later attempt generates the same video; False without any
        change if this worker no longer owns the job."""
        return bool(
            self._run(
                "UPDATE jobs SET request = ? WHERE job_id = ? AND status = 'running' AND worker = ? AND attempts = ? "
                "RETURNING *",
                (request.model_dump_json(), *self._hold(job)),
            )
        )

    def succeed(self, job: Job, result: dict[str, Any]) -> bool:
        """Finish a job; False without any change if this worker no longer owns it."""
        return self._finish(job, "succeeded", result=result)

    def fail(self, job: Job, error: str, failure: FailureKind = "execution") -> bool:
        """End a job that cannot succeed; returns as :meth:`succeed`."""
        return self._finish(job, "failed", error=error, failure=failure)

    def stopped(self, job: Job, why: str = "cancelled") -> bool:
        """End a job that was cancelled or set aside; returns as :meth:`succeed`."""
        return self._finish(job, "canceled", error=why, failure="canceled")

    def give_back(self, job: Job) -> bool:
        """Put an unfinished job back into the queue without counting the attempt; returns as :meth:`succeed`."""
        return bool(self._give_back("job_id = ? AND worker = ? AND attempts = ?", self._hold(job)))

    def give_back_all_of(self, worker: str) -> list[Job]:
        """Like :meth:`give_back`, for all jobs of a worker that ended through no fault of its jobs."""
        return self._give_back("worker = ?", (worker,))

    def release(self, job: Job, error: str) -> bool:
        """Put a job back into the queue after a temporary failure, or fail it after the last attempt."""
        return bool(self._lose("job_id = ? AND worker = ? AND attempts = ?", self._hold(job), error))

    def expire(self, worker: str | None = None) -> list[Job]:
        """Release the jobs whose lease has expired, or all jobs of ``worker``, which is known to be dead.

        A lease that ends more than twice its length from now means that the clock was set back; it counts as expired.
        """
        now, reason = self._now(), "the process that worked on it died"
        if worker is not None:
            return self._lose("worker = ?", (worker,), reason)
        return self._lose("(lease_until < ? OR lease_until > ? + 2 * lease_s)", (now, now), reason)

    def cancel(self, job_id: str) -> Job | None:
        """Cancel a waiting job, or ask a running job's worker to stop; None if there is no such job."""
        self._run(
            """UPDATE jobs SET cancel_requested = 1,
                   status = CASE WHEN status = 'queued' THEN 'canceled' ELSE status END,
                   finished_at = CASE WHEN status = 'queued' THEN ? END,
                   error = CASE WHEN status = 'queued' THEN 'cancelled' ELSE error END,
                   failure = CASE WHEN status = 'queued' THEN 'canceled' END
               WHERE job_id = ? AND status IN ('queued', 'running') RETURNING *""",
            (self._now(), job_id),
        )
        return self.get(job_id)

    def give_up(self, job_id: str, error: str) -> Job | None:
        """Fail a waiting job that no worker can run; None if it is not waiting."""
        rows = self._run(
            """UPDATE jobs SET status = 'failed', finished_at = ?, error = ?, failure = 'execution'
               WHERE job_id = ? AND status = 'queued' RETURNING *""",
            (self._now(), error, job_id),
        )
        return rows[0] if rows else None

    def retry(self, job_id: str) -> Job | None:
        """Queue a failed or cancelled job again with all its attempts; None if it is in another state."""
        rows = self._run(
            """UPDATE jobs SET status = 'queued', attempts = 0, cancel_requested = 0, error = '', failure = NULL,
                   progress = NULL, started_at = NULL, finished_at = NULL, webhook_attempts = 0, webhook_at = NULL,
                   webhook_error = '', webhook_state = CASE WHEN webhook IS NOT NULL THEN 'waiting' END
               WHERE job_id = ? AND status IN ('failed', 'canceled') RETURNING *""",
            (job_id,),
        )
        return rows[0] if rows else None

    def delete(self, job_id: str) -> bool:
        """Delete a finished job; False if it does not exist or is not finished."""
        marks = ", ".join("?" * len(FINISHED))
        return bool(self._run(f"DELETE FROM jobs WHERE job_id = ? AND status IN ({marks}) RETURNING *",
                              (job_id, *FINISHED)))  # fmt: skip

    def get(self, job_id: str) -> Job | None:
        """One job, or None if there is no such job."""
        rows = self._run("SELECT * FROM jobs WHERE job_id = ?", (job_id,))
        return rows[0] if rows else None

    def find(
        self,
        *,
        statuses: Collection[JobStatus] = (),
        model: str | None = None,
        after: int | None = None,
        finished_after: float | None = None,
        finished_before: float | None = None,
        created_after: float | None = None,
        created_before: float | None = None,
        has_image: bool | None = None,
        oldest_first: bool = False,
        limit: int = 100,
        offset: int = 0,
    ) -> list[Job]:
        """Jobs that meet all given conditions, newest first by default.

        Args:
            statuses: any of these; empty means all.
            after: number of the last job seen; only jobs after it in the chosen order are returned.
            limit, offset: maximum number of jobs to return, and number of jobs to skip first.
        """
        later = ">" if oldest_first else "<"
        where, values = _where(
            ("status IN ({})", tuple(statuses) or None),
            ("model = ?", model),
            (f"number {later} ?", after),
            ("finished_at > ?", finished_after),
            ("finished_at < ?", finished_before),
            ("created_at > ?", created_after),
            ("created_at < ?", created_before),
            ("(json_extract(request, '$.image') IS NOT NULL) = ?", has_image),
        )
        order = "ASC" if oldest_first else "DESC"
        return self._run(
            f"SELECT * FROM jobs WHERE {where} ORDER BY number {order} LIMIT ? OFFSET ?", (*values, limit, offset)
        )

    def uses_image(self, digest: str) -> bool:
        """Whether a job's request has the input image with this SHA-256."""
        rows = self.database.run(
            "SELECT 1 FROM jobs WHERE json_extract(request, '$.image.sha256') = ? LIMIT 1", (digest,)
        )
        return bool(rows)

    def open_ids(self) -> set[str]:
        """The ids of all waiting and running jobs."""
        rows = self.database.run("SELECT job_id FROM jobs WHERE status IN ('queued', 'running')")
        return {row["job_id"] for row in rows}

    def counts(self) -> dict[JobStatus, int]:
        """Number of jobs by status."""
        rows = self.database.run("SELECT status, COUNT(*) AS jobs FROM jobs GROUP BY status")
        return {row["status"]: row["jobs"] for row in rows}

    def wait_for_change(self, ended: Callable[[], bool], limit_s: float) -> None:
        """Return when the store changes after this thread's last wait, when ``ended()`` is true, or at the limit."""
        self.database.wait_for_change(ended, limit_s)

    def close(self) -> None:
        """Close this thread's connection."""
        self.database.close()

    def _lose(self, which: str, values: tuple[Any, ...], error: str) -> list[Job]:
        """Take running jobs from their workers; jobs with attempts left go back into the queue."""
        now = self._now()
        return self._run(
            f"""UPDATE jobs SET
                   status = CASE WHEN cancel_requested THEN 'canceled'
                                 WHEN attempts < max_attempts THEN 'queued' ELSE 'failed' END,
                   finished_at = CASE WHEN cancel_requested OR attempts >= max_attempts THEN ? END,
                   failure = CASE WHEN cancel_requested THEN 'canceled'
                                  WHEN attempts >= max_attempts THEN 'execution' END,
                   error = CASE WHEN cancel_requested THEN 'cancelled'
                                WHEN attempts >= max_attempts
                                THEN ? || ' (attempt ' || attempts || ' of ' || max_attempts || ')' ELSE '' END,
                   worker = NULL, lease_until = NULL
               WHERE status = 'running' AND {which} RETURNING *""",
            (now, error, *values),
        )

    def _give_back(self, which: str, values: tuple[Any, ...]) -> list[Job]:
        return self._run(
            f"""UPDATE jobs SET status = CASE WHEN cancel_requested THEN 'canceled' ELSE 'queued' END,
                   finished_at = CASE WHEN cancel_requested THEN ? END,
                   failure = CASE WHEN cancel_requested THEN 'canceled' END,
                   error = CASE WHEN cancel_requested THEN 'cancelled' ELSE '' END,
                   worker = NULL, lease_until = NULL, attempts = attempts - 1
               WHERE status = 'running' AND {which} RETURNING *""",
            (self._now(), *values),
        )

    def _finish(
        self, job: Job, status: JobStatus, *, result: dict[str, Any] | None = None, error: str = "",
        failure: FailureKind | None = None,
    ) -> bool:  # fmt: skip
        rows = self._run(
            """UPDATE jobs SET status = ?, finished_at = ?, result = ?, error = ?, failure = ?, worker = NULL,
                   lease_until = NULL
               WHERE job_id = ? AND status = 'running' AND worker = ? AND attempts = ? RETURNING *""",
            (status, self._now(), None if result is None else json.dumps(result), error, failure, *self._hold(job)),
        )
        return bool(rows)

    def _hold(self, job: Job) -> tuple[str, str | None, int]:
        return job.job_id, job.worker, job.attempts

    def _now(self) -> float:
        return self.database.clock()

    def _run(self, statement: str, values: Any, *, durable: bool = True) -> list[Job]:
        return [read_job(row) for row in self.database.run(statement, values, durable=durable)]


def _new_id() -> str:
    """A random UUID without "429" in it: one vendor's client mistakes those digits for an HTTP status and retries."""
    while "429" in (job_id := str(uuid.uuid4())):
        continue
    return job_id


def _where(*conditions: tuple[str, Any]) -> tuple[str, tuple[Any, ...]]:
    """Join the conditions whose value is not None into SQL; a tuple matches any of its values."""
    parts = ["1"]
    values: list[Any] = []
    for text, value in conditions:
        if isinstance(value, tuple):
            parts.append(text.format(", ".join("?" * len(value))))
            values += value
        elif value is not None:
            parts.append(text)
            values.append(value)
    return " AND ".join(parts), tuple(values)
