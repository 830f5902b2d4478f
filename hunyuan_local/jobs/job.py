"""A job: one row of the store."""

from __future__ import annotations

import json
import sqlite3
from typing import Any, Literal

from pydantic import ConfigDict

from ..schema import FailureKind, GenerationRequest, JobStatus, Progress, SeedTeller

FINISHED: tuple[JobStatus, ...] = ("succeeded", "failed", "canceled")


class Job(SeedTeller):
    """One row. Times are seconds since 1970; ``origin`` is free-form data of the code that enqueued the job.

    ``webhook`` is a URL to call when the job has ended, see :class:`.webhook_queue.WebhookQueue`.
    """

    model_config = ConfigDict(frozen=True)

    number: int
    job_id: str
    status: JobStatus
    model: str
    request: GenerationRequest
    origin: dict[str, Any]
    max_attempts: int
    attempts: int
    worker: str | None
    lease_until: float | None
    lease_s: float | None
    cancel_requested: bool
    progress: Progress | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    result: dict[str, Any] | None
    error: str
    failure: FailureKind | None
    webhook: str | None
    webhook_state: Literal["waiting", "delivered", "given up"] | None
    webhook_attempts: int
    webhook_at: float | None
    webhook_error: str

    @property
    def told_seed(self) -> int | None:
        """The seed that was used; before the job has run, the seed of the request."""
        used: int | None = (self.result or {}).get("seed", self.request.seed)
        return used

    @property
    def is_finished(self) -> bool:
        """Whether the job has ended; only a retry changes it again."""
        return self.status in FINISHED


def read_job(row: sqlite3.Row) -> Job:
    """Convert a row of the table to a job."""
    fields = dict(row)
    for name in ("origin", "progress", "result"):
        if fields[name] is not None:
            fields[name] = json.loads(fields[name])
    # The model checks types strictly; JSON preserves them.
    fields["request"] = GenerationRequest(**json.loads(fields["request"]))
    return Job(**fields)
