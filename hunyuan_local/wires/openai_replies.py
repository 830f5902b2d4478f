"""What a server answers in OpenAI's dialect; the fields are those of its reference."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import Reply


class VideoFailure(Reply):
    code: str
    message: str


class Video(Reply):
    """The state of a video."""

    id: str
    object: Literal["video"]
    created_at: int
    completed_at: int | None
    expires_at: Annotated[int | None, Field(description="When the file is deleted, in seconds since 1970.")]
    model: str
    status: Literal["queued", "in_progress", "completed", "failed"]
    progress: Annotated[int, Field(ge=0, le=100)]
    prompt: str | None
    seconds: str
    size: str
    error: VideoFailure | None
    # The dialect has no place for these; clients keep keys that they do not know. The name of the first is that of
    # the dialect's own answers about pictures.
    revised_prompt: Annotated[str | None, Field(description="There if the prompt was rewritten.")] = None
    nsfw: Annotated[bool | None, Field(description="There if frames were checked: whether any was flagged.")] = None
    seed: Annotated[int | None, Field(description="The seed that is used.")] = None


class VideoList(Reply):
    object: Literal["list"]
    data: list[Video]
    has_more: bool
    first_id: str | None
    last_id: str | None


class VideoDeleted(Reply):
    id: str
    object: Literal["video.deleted"]
    deleted: Annotated[bool, Field(description="Also true of a video that was cancelled; its record stays.")]


class OpenAIError(Reply):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIFault(Reply):
    error: OpenAIError
