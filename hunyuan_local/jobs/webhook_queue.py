"""Pending webhook calls: jobs that have ended and have a webhook URL.

The URL is in the job's own row, so the call becomes due as soon as the job ends, for whatever reason. Independent of
what is sent, and how.
"""

from __future__ import annotations

from .database import Database
from .job import Job, read_job

LONGEST_WAIT_S = 6 * 3600.0


class WebhookQueue:
    """The pending calls of a store. If a sender dies during a call, the call is repeated, so it may arrive twice."""

    def __init__(self, database: Database):
        self._database = database

    def take(self, lease_s: float) -> Job | None:
        """Claim a job with a due call for ``lease_s`` seconds; None if no call is due.

        A call that is due later than ``LONGEST_WAIT_S`` from now means that the clock was set back; it counts as due.

        Raises:
            StoreError: as :meth:`hunyuan_local.jobs.database.Database.run`; so do the other methods.
        """
        rows = self._database.run(
            """UPDATE jobs SET webhook_at = :now + :lease_s, webhook_attempts = webhook_attempts + 1
               WHERE number = (SELECT number FROM jobs WHERE webhook_state = 'waiting' AND finished_at IS NOT NULL
                                   AND (webhook_at IS NULL OR webhook_at <= :now OR webhook_at > :now + :longest)
                               ORDER BY webhook_at, number LIMIT 1)
               RETURNING *""",
            {"now": self._database.clock(), "lease_s": lease_s, "longest": LONGEST_WAIT_S},
        )
        return read_job(rows[0]) if rows else None

    def delivered(self, job: Job) -> bool:
        """Mark the call as delivered; False without any change if this sender no longer owns it."""
        return self._close(job, "delivered", "")

    def postpone(self, job: Job, seconds: float, error: str) -> bool:
        """Record ``error`` and retry after ``seconds``, at most ``LONGEST_WAIT_S``; returns as :meth:`delivered`."""
        due = self._database.clock() + min(seconds, LONGEST_WAIT_S)
        return self._write(job, "webhook_at = ?, webhook_error = ?", (due, error))

    def give_up(self, job: Job, error: str) -> bool:
        """Record the last error and stop retrying; returns as :meth:`delivered`."""
        return self._close(job, "given up", error)

    def close(self) -> None:
        """Close this thread's connection."""
        self._database.close()

    def _close(self, job: Job, state: str, error: str) -> bool:
        return self._write(job, "webhook_state = ?, webhook_error = ?", (state, error))

    def _write(self, job: Job, change: str, values: tuple[object, ...]) -> bool:
        """Update a call if it is still the same try after the same end of the job, since jobs can run again."""
        hold = (job.job_id, job.webhook_attempts, job.finished_at)
        rows = self._database.run(
            f"""UPDATE jobs SET {change} WHERE job_id = ? AND webhook_attempts = ? AND finished_at = ?
                    AND webhook_state = 'waiting' RETURNING number""",
            (*values, *hold),
        )
        return bool(rows)
