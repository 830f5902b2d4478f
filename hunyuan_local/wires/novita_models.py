"""The JSON objects of the Novita dialect: bodies that servers receive and send, and answers that clients read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..schema import RewriteMode
from .base import Answer, Body, Lenient, Reply

TaskStatus = Literal["TASK_STATUS_QUEUED", "TASK_STATUS_PROCESSING", "TASK_STATUS_SUCCEED", "TASK_STATUS_FAILED"]

# Bodies that a server receives


class _Webhook(Body):
    url: Annotated[str, Field(json_schema_extra={"format": "uri"})]


class _RequestExtra(Body):
    webhook: _Webhook | None = None
    rewrite: RewriteMode | None = None  # not part of Novita's API; only self-hosted servers have it


class SubmissionBody(Body):
    """The body of a submission."""

    model_name: Literal["hunyuan-video-fast"]
    width: int
    height: int
    seed: int
    steps: int
    prompt: str
    frames: int = 85
    extra: _RequestExtra = _RequestExtra()


class ResultQuery(Body):
    """The query for the state of a job."""

    task_id: str


# Bodies that a server sends


class TaskSubmitted(Reply):
    task_id: str


class Task(Reply):
    task_id: str
    task_type: str
    status: TaskStatus
    reason: Annotated[str, Field(description="Empty unless the task failed.")]
    eta: Annotated[int, Field(ge=0, description="Estimated seconds left; 0 until there is an estimate.")]
    progress_percent: Annotated[int, Field(ge=0, le=100)]


class TaskVideo(Reply):
    video_url: str
    video_url_ttl: Annotated[str, Field(description="Seconds for which the URL is valid.")]
    video_type: Literal["mp4"]


class TaskExtra(Reply):
    # ``nsfw`` is not documented: the service has such a verdict only for images.
    seed: Annotated[str | None, Field(description="The seed that is used.")] = None
    nsfw: Annotated[bool | None, Field(description="Whether any frame was flagged; absent if unchecked.")] = None


class TaskResult(Reply):
    """The state of a task."""

    task: Task
    images: Annotated[list[str], Field(max_length=0)]
    videos: list[TaskVideo]
    extra: TaskExtra


class TaskEvent(Reply):
    event_type: Literal["ASYNC_TASK_RESULT"]
    payload: TaskResult


class NovitaFault(Reply):
    code: int
    reason: str
    message: str
    metadata: dict[str, str]


# Answers that a client reads, with only the fields that we rely on


class _TaskAnswer(Answer):
    task_id: str
    status: str
    reason: Lenient[str] = None
    eta: Lenient[float] = None
    progress_percent: Lenient[Annotated[float, Field(ge=0, le=100)]] = None


class _VideoAnswer(Answer):
    video_url: str
    video_url_ttl: Lenient[str | int] = None  # the documentation shows a number in quotes


class DebugInfoAnswer(Answer):
    """Times in milliseconds since 1970, judging by their size. Undocumented, but read by Novita's Python client."""

    execute_time_ms: Annotated[int, Field(gt=10**12, lt=10**14)]
    complete_time_ms: Annotated[int, Field(gt=10**12, lt=10**14)]


class _ExtraAnswer(Answer):
    seed: Lenient[str | int] = None
    debug_info: Lenient[DebugInfoAnswer] = None


class ResultAnswer(Answer):
    task: _TaskAnswer
    videos: list[_VideoAnswer] | None = None
    extra: Lenient[_ExtraAnswer] = None


class SubmittedAnswer(Answer):
    task_id: Annotated[str, Field(min_length=1)]
