"""The JSON objects of Novita's dialect: what a server receives, what it answers, and what we read at a service."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..schema import RewriteMode
from .base import Answer, Body, Lenient, Reply

TaskStatus = Literal["TASK_STATUS_QUEUED", "TASK_STATUS_PROCESSING", "TASK_STATUS_SUCCEED", "TASK_STATUS_FAILED"]

# What a server receives


class _Webhook(Body):
    url: Annotated[str, Field(json_schema_extra={"format": "uri"})]


class _RequestExtra(Body):
    webhook: _Webhook | None = None
    rewrite: RewriteMode | None = None  # on no page of the service: of servers of one's own alone


class SubmissionBody(Body):
    """What a submission says."""

    model_name: Literal["hunyuan-video-fast"]
    width: int
    height: int
    seed: int
    steps: int
    prompt: str
    frames: int = 85
    extra: _RequestExtra = _RequestExtra()


class ResultQuery(Body):
    """Which job is asked for."""

    task_id: str


# What a server answers


class TaskSubmitted(Reply):
    task_id: str


class Task(Reply):
    task_id: str
    task_type: str
    status: TaskStatus
    reason: Annotated[str, Field(description="Empty unless it failed.")]
    eta: Annotated[int, Field(ge=0, description="Seconds left by measured speed; 0 while nothing is measured.")]
    progress_percent: Annotated[int, Field(ge=0, le=100)]


class TaskVideo(Reply):
    video_url: str
    video_url_ttl: Annotated[str, Field(description="Seconds for which the URL works.")]
    video_type: Literal["mp4"]


class TaskExtra(Reply):
    # A verdict is on no page of the service, which has a place for one on pictures alone.
    seed: Annotated[str | None, Field(description="The seed that is used.")] = None
    nsfw: Annotated[bool | None, Field(description="There if frames were checked: whether any was flagged.")] = None


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


# What we rely on of a service's answers


class _TaskAnswer(Answer):
    task_id: str
    status: str
    reason: Lenient[str] = None
    eta: Lenient[float] = None
    progress_percent: Lenient[Annotated[float, Field(ge=0, le=100)]] = None


class _VideoAnswer(Answer):
    video_url: str
    video_url_ttl: Lenient[str | int] = None  # the page shows a number in quotes


class DebugInfoAnswer(Answer):
    """Not on the page; its Python client knows it. Milliseconds since 1970, by the size of the numbers."""

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
