"""The state of a job, as a server or a hosted service reports it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from .request import GenerationRequest

JobStatus = Literal["queued", "running", "succeeded", "failed", "canceled"]
FailureKind = Literal["moderation", "invalid", "execution", "timeout", "canceled"]


class JobView(BaseModel):
    """A job as clients see it, common to all dialects; None if the dialect does not report it.

    Attributes:
        job_id: id at the server or service that runs it.
        status: current status; the outputs exist once it is ``succeeded``.
        request: the submitted request.
        created_at, completed_at: times with a time zone.
        progress_percent: 0 to 100.
        eta_s: estimated seconds until completion.
        outputs: absolute URLs of the finished files; ``output_ttl_s`` is how long they work.
        error, failure: message and kind of a failure.
        inference_s: seconds of computation, without waiting.
        seed: the seed that was used.
        nsfw: verdict of the safety checker for each output; empty without a checker.
        model: name of the model that generates it, such as ``tiny``; empty if unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    job_id: str
    status: JobStatus
    request: GenerationRequest | None = None
    created_at: datetime | None = None
    completed_at: datetime | None = None
    progress_percent: int | None = Field(default=None, ge=0, le=100)
    eta_s: float | None = Field(default=None, ge=0)
    outputs: tuple[str, ...] = ()
    output_ttl_s: int | None = None
    error: str = ""
    failure: FailureKind | None = None
    inference_s: float | None = None
    seed: int | None = None
    nsfw: tuple[bool, ...] = ()
    model: str = ""
