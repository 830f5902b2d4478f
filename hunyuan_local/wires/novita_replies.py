"""What a server answers in Novita's dialect; the fields are those of its pages."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import Reply


class TaskSubmitted(Reply):
    task_id: str


class Task(Reply):
    task_id: str
    task_type: str
    status: Literal["TASK_STATUS_QUEUED", "TASK_STATUS_PROCESSING", "TASK_STATUS_SUCCEED", "TASK_STATUS_FAILED"]
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
