"""Webhooks that are still to be called: jobs that have ended and whose caller asked to be told.

The address stands in the job's own row, so the call is owed from the moment in which the job ends,
however it ends. Knows nothing about what is sent, nor how.
"""

from __future__ import annotations

from .database import Database
from .job import Job, read_job

LONGEST_WAIT_S = 6 * 3600.0


class WebhookQueue:
    """The calls that a store owes. A call whose sender dies is owed again: it may arrive twice."""

    def __init__(self, database: Database):
        self._database = database

    def take(self, lease_s: float) -> Job | None:
        """A job whose call is due, for ``lease_s`` seconds this sender's alone; None if none is.

        A call that is due later than ``LONGEST_WAIT_S`` from now means that the clock was set back;
        it is due as well.

        Raises:
            StoreError: as :meth:`hunyuan_local.jobs.database.Database.run`; also the other methods.
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
        """The receiver has taken it; False, and nothing is changed, if the call is no longer this sender's."""
        return self._close(job, "delivered", "")

    def postpone(self, job: Job, seconds: float, error: str) -> bool:
        """It failed with ``error``; try again after so many seconds, up to ``LONGEST_WAIT_S``. As :meth:`delivered`."""
        due = self._database.clock() + min(seconds, LONGEST_WAIT_S)
        return self._write(job, "webhook_at = ?, webhook_error = ?", (due, error))

    def give_up(self, job: Job, error: str) -> bool:
        """It failed for the last time; as :meth:`delivered`."""
        return self._close(job, "given up", error)

    def close(self) -> None:
        """Close this thread's connection."""
        self._database.close()

    def _close(self, job: Job, state: str, error: str) -> bool:
        return self._write(job, "webhook_state = ?, webhook_error = ?", (state, error))

    def _write(self, job: Job, change: str, values: tuple[object, ...]) -> bool:
        """Change a call that is still of the same try, at the same end of the job: jobs can be run again."""
        hold = (job.job_id, job.webhook_attempts, job.finished_at)
        rows = self._database.run(
            f"""UPDATE jobs SET {change} WHERE job_id = ? AND webhook_attempts = ? AND finished_at = ?
                    AND webhook_state = 'waiting' RETURNING number""",
            (*values, *hold),
        )
        return bool(rows)
