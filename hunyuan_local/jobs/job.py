"""One job as it stands in the store."""

from __future__ import annotations

import json
import sqlite3
from typing import Any, Literal

from pydantic import ConfigDict

from ..schema import FailureKind, GenerationRequest, JobStatus, Progress, SeedTeller

FINISHED: tuple[JobStatus, ...] = ("succeeded", "failed", "canceled")


class Job(SeedTeller):
    """One row. Times are seconds since 1970; ``origin`` is what its taker wants to remember of it.

    ``webhook`` is a URL to be called when the job has ended; see :class:`.webhook_queue.WebhookQueue`.
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
        """The seed that was used, or of the request while nothing is made."""
        used: int | None = (self.result or {}).get("seed", self.request.seed)
        return used

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen to it by itself."""
        return self.status in FINISHED


def read_job(row: sqlite3.Row) -> Job:
    """A row of the table as a job."""
    fields = dict(row)
    for name in ("origin", "progress", "result"):
        if fields[name] is not None:
            fields[name] = json.loads(fields[name])
    # The request's own checks are strict about types, which JSON keeps.
    fields["request"] = GenerationRequest(**json.loads(fields["request"]))
    return Job(**fields)
