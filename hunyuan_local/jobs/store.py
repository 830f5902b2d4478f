"""Jobs in one SQLite file: taken, claimed under a lease, finished once, whoever dies in between.

Every change is one statement, so that any number of processes on one machine may share the file. A
worker holds a job by its name and the number of the attempt; whoever lost the lease can neither
report progress nor finish. Knows nothing about models, dialects or the network.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ..errors import QueueFullError, StoreError
from ..schema import FailureKind, GenerationRequest, JobStatus, Progress
from .migrations import migrate

FINISHED = ("succeeded", "failed", "canceled")


class Job(BaseModel):
    """One row. Times are seconds since 1970; ``origin`` is what its taker wants to remember of it."""

    model_config = ConfigDict(frozen=True)

    number: int
    job_id: str
    status: JobStatus
    request: GenerationRequest
    origin: dict[str, Any]
    max_attempts: int
    attempts: int
    worker: str | None
    lease_until: float | None
    cancel_requested: bool
    progress: Progress | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    result: dict[str, Any] | None
    error: str
    failure: FailureKind | None


class JobStore:
    """The jobs of one data folder.

    Args:
        path: the SQLite file; made if it is not there.
        clock: seconds since 1970.

    Raises:
        StoreError: the file is damaged, not a job store, or cannot be written; it is left as it is.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time):
        self.path = path
        self._clock = clock
        self._local = threading.local()
        with self._translated() as connection:
            migrate(connection)

    def enqueue(
        self,
        request: GenerationRequest,
        origin: dict[str, Any] | None = None,
        *,
        max_attempts: int = 3,
        max_queue: int | None = None,
    ) -> Job:
        """Take a job; it is on disk when this returns.

        Raises:
            QueueFullError: ``max_queue`` jobs are waiting already.
        """
        job_id = str(uuid.uuid4())
        values = (job_id, request.model_dump_json(), json.dumps(origin or {}), max_attempts, self._clock())
        rows = self._run(
            """INSERT INTO jobs (job_id, request, origin, max_attempts, created_at)
               SELECT ?, ?, ?, ?, ? WHERE ? IS NULL OR (SELECT COUNT(*) FROM jobs WHERE status = 'queued') < ?
               RETURNING *""",
            (*values, max_queue, max_queue),
        )
        if not rows:
            raise QueueFullError(f"{max_queue} jobs are waiting already; try again later")
        return rows[0]

    def claim(self, worker: str, lease_s: float) -> Job | None:
        """The oldest waiting job, now this worker's for ``lease_s`` seconds; None if none waits."""
        now = self._clock()
        rows = self._run(
            """UPDATE jobs SET status = 'running', worker = ?, lease_until = ?, attempts = attempts + 1,
                   started_at = COALESCE(started_at, ?), progress = NULL
               WHERE number = (SELECT number FROM jobs WHERE status = 'queued' ORDER BY number LIMIT 1)
               RETURNING *""",
            (worker, now + lease_s, now),
        )
        return rows[0] if rows else None

    def beat(self, job: Job, lease_s: float, progress: Progress | None = None) -> bool:
        """Prolong the lease and report; False if the worker should stop: cancelled, or the job is another's."""
        rows = self._run(
            """UPDATE jobs SET lease_until = ?, progress = COALESCE(?, progress)
               WHERE job_id = ? AND status = 'running' AND worker = ? AND attempts = ? RETURNING *""",
            (self._clock() + lease_s, progress and progress.model_dump_json(), *self._hold(job)),
        )
        return bool(rows) and not rows[0].cancel_requested

    def succeed(self, job: Job, result: dict[str, Any]) -> bool:
        """Finish a job; False, and nothing is changed, if it is no longer this worker's."""
        return self._finish(job, "succeeded", result=result)

    def fail(self, job: Job, error: str, failure: FailureKind = "execution") -> bool:
        """End a job that cannot be done; as :meth:`succeed`."""
        return self._finish(job, "failed", error=error, failure=failure)

    def stopped(self, job: Job) -> bool:
        """The worker has stopped on request; as :meth:`succeed`."""
        return self._finish(job, "canceled", error="cancelled", failure="canceled")

    def give_back(self, job: Job) -> bool:
        """Return a job that was not worked to its end, without counting the attempt; as :meth:`succeed`."""
        return bool(
            self._run(
                """UPDATE jobs SET status = 'queued', worker = NULL, lease_until = NULL, attempts = attempts - 1
                   WHERE job_id = ? AND status = 'running' AND worker = ? AND attempts = ? RETURNING *""",
                self._hold(job),
            )
        )

    def expire(self) -> list[Job]:
        """Take jobs from workers whose lease has ended: to be run again, or failed after the last attempt."""
        return self._run(
            """UPDATE jobs SET
                   status = CASE WHEN cancel_requested THEN 'canceled'
                                 WHEN attempts < max_attempts THEN 'queued' ELSE 'failed' END,
                   finished_at = CASE WHEN cancel_requested OR attempts >= max_attempts THEN ? END,
                   failure = CASE WHEN cancel_requested THEN 'canceled'
                                  WHEN attempts >= max_attempts THEN 'execution' END,
                   error = CASE WHEN cancel_requested THEN 'cancelled'
                                WHEN attempts >= max_attempts
                                THEN 'the worker ' || worker || ' died, at attempt ' || attempts || ' of '
                                     || max_attempts ELSE '' END,
                   worker = NULL, lease_until = NULL
               WHERE status = 'running' AND lease_until < ? RETURNING *""",
            (self._clock(), self._clock()),
        )

    def cancel(self, job_id: str) -> Job | None:
        """Cancel a waiting job at once, or ask a running one's worker to stop; None if there is no such job."""
        self._run(
            """UPDATE jobs SET cancel_requested = 1,
                   status = CASE WHEN status = 'queued' THEN 'canceled' ELSE status END,
                   finished_at = CASE WHEN status = 'queued' THEN ? END,
                   error = CASE WHEN status = 'queued' THEN 'cancelled' ELSE error END,
                   failure = CASE WHEN status = 'queued' THEN 'canceled' END
               WHERE job_id = ? AND status IN ('queued', 'running') RETURNING *""",
            (self._clock(), job_id),
        )
        return self.get(job_id)

    def retry(self, job_id: str) -> Job | None:
        """Put a failed or cancelled job back into the queue with all its attempts; None if it is neither."""
        rows = self._run(
            """UPDATE jobs SET status = 'queued', attempts = 0, cancel_requested = 0, error = '', failure = NULL,
                   progress = NULL, started_at = NULL, finished_at = NULL
               WHERE job_id = ? AND status IN ('failed', 'canceled') RETURNING *""",
            (job_id,),
        )
        return rows[0] if rows else None

    def delete(self, job_id: str) -> bool:
        """Forget a finished job; False if there is none, or it is not finished."""
        marks = ", ".join("?" * len(FINISHED))
        return bool(self._run(f"DELETE FROM jobs WHERE job_id = ? AND status IN ({marks}) RETURNING *",
                              (job_id, *FINISHED)))  # fmt: skip

    def get(self, job_id: str) -> Job | None:
        """One job, or None."""
        rows = self._run("SELECT * FROM jobs WHERE job_id = ?", (job_id,))
        return rows[0] if rows else None

    def list(self, *, status: JobStatus | None = None, after: int | None = None, limit: int = 100) -> list[Job]:
        """Jobs, the newest first; ``after`` is the number of the last one seen."""
        return self._run(
            """SELECT * FROM jobs WHERE (?1 IS NULL OR status = ?1) AND (?2 IS NULL OR number < ?2)
               ORDER BY number DESC LIMIT ?3""",
            (status, after, limit),
        )

    def counts(self) -> dict[JobStatus, int]:
        """How many jobs have each status."""
        with self._translated() as connection:
            rows = connection.execute("SELECT status, COUNT(*) AS jobs FROM jobs GROUP BY status").fetchall()
        return {row["status"]: row["jobs"] for row in rows}

    def finished_before(self, moment: float) -> list[Job]:
        """Finished jobs older than a moment, for pruning."""
        return self._run("SELECT * FROM jobs WHERE finished_at < ? ORDER BY number", (moment,))

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _finish(
        self, job: Job, status: JobStatus, *, result: dict[str, Any] | None = None, error: str = "",
        failure: FailureKind | None = None,
    ) -> bool:  # fmt: skip
        rows = self._run(
            """UPDATE jobs SET status = ?, finished_at = ?, result = ?, error = ?, failure = ?, worker = NULL,
                   lease_until = NULL
               WHERE job_id = ? AND status = 'running' AND worker = ? AND attempts = ? RETURNING *""",
            (status, self._clock(), None if result is None else json.dumps(result), error, failure, *self._hold(job)),
        )
        return bool(rows)

    def _hold(self, job: Job) -> tuple[str, str | None, int]:
        return job.job_id, job.worker, job.attempts

    def _run(self, statement: str, values: tuple) -> list[Job]:
        with self._translated() as connection:
            return [_job(row) for row in connection.execute(statement, values).fetchall()]

    @contextmanager
    def _translated(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection; what SQLite raises becomes an error of ours."""
        try:
            yield self._connection()
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"the job store {self.path} cannot be used: {error}; nothing was overwritten: restore the file from a "
                "copy, or move it away to start with an empty one; check the disk"
            ) from error

    def _connection(self) -> sqlite3.Connection:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            # Each statement is its own transaction; others wait up to 30 s for their turn.
            connection = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # a job that was acknowledged survives a power cut
            self._local.connection = connection
        return connection


def _job(row: sqlite3.Row) -> Job:
    fields = dict(row)
    for name in ("origin", "progress", "result"):
        if fields[name] is not None:
            fields[name] = json.loads(fields[name])
    # The request's own checks are strict about types, which JSON keeps.
    fields["request"] = GenerationRequest(**json.loads(fields["request"]))
    return Job(**fields)
