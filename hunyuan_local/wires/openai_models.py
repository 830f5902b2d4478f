"""The JSON objects of OpenAI's dialect: what a server receives, what it answers, and what we read at a service."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..schema import RewriteMode
from .base import Answer, Body, Lenient, Reply
from .forms import FROM_TEXT, Number, Whole

VideoStatus = Literal["queued", "in_progress", "completed", "failed"]

# What a server receives


class SubmissionBody(Body):
    """What a submission says; the same fields may stand in objects of extras."""

    prompt: str | None = None
    model: str | None = None  # a server has one model; that of another is no reason to refuse
    size: str | None = None
    # The most frames there are at the usual rate; at a lower rate a longer video is asked for in frames.
    seconds: Annotated[float, Field(gt=0, le=170), FROM_TEXT] | None = None
    negative_prompt: str | None = None
    width: Whole | None = None
    height: Whole | None = None
    num_frames: Whole | None = None
    num_inference_steps: Whole | None = None
    seed: Whole | None = None
    guidance_scale: Number | None = None
    true_cfg_scale: Number | None = None
    flow_shift: Number | None = None
    fps: Whole | None = None
    rewrite: RewriteMode | None = None


class ListQuery(Body):
    """Which page of the videos."""

    after: str | None = None
    limit: Annotated[int, Field(ge=1, le=100), FROM_TEXT] = 20
    order: Literal["asc", "desc"] = "desc"


class ContentQuery(Body):
    """Which file of a video."""

    variant: Literal["video", "thumbnail"] = "video"


# What a server answers


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
    status: VideoStatus
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
    seed_text: Annotated[str | None, Field(description="The seed as a text, if it is 2^53 or more.")] = None


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


class Model(Reply):
    """A model that videos can be made with."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(Reply):
    object: Literal["list"]
    data: list[Model]


class OpenAIError(Reply):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIFault(Reply):
    error: OpenAIError


# What we rely on of a service's answers


class ErrorAnswer(Answer):
    code: str | int | None = None  # vLLM-Omni's is a number as well, SGLang sends none
    message: str | None = None


class VideoAnswer(Answer):
    id: Annotated[str, Field(min_length=1)]
    status: str
    progress: Lenient[Annotated[float, Field(ge=0, le=100)]] = None
    created_at: Lenient[float] = None
    completed_at: Lenient[float] = None
    expires_at: Lenient[float] = None
    error: Lenient[ErrorAnswer] = None
    seed: object = None


class SubmittedAnswer(Answer):
    id: Annotated[str, Field(min_length=1)]
