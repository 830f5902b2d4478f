"""The JSON objects of the OpenAI dialect: bodies that servers receive and send, and answers that clients read."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ..images import ImageFit
from ..schema import RewriteMode
from .base import Answer, Body, Lenient, Reply
from .forms import FROM_TEXT, Number, Whole

VideoStatus = Literal["queued", "in_progress", "completed", "failed"]

# Bodies that a server receives


class SubmissionBody(Body):
    """The body of a submission; the fields may also be in nested objects of extra fields."""

    prompt: str | None = None
    model: str | None = None  # ignored: a server has one model
    size: str | None = None
    # 170 s covers the maximum number of frames at 24 fps; for longer videos at a lower rate, clients set num_frames.
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
    # Read by ``openai.py``: text, a file, or an object with the text.
    input_reference: Any = None
    image_fit: ImageFit | None = None  # not in OpenAI's API


class ImageReference(Body):
    """An image by its address."""

    image_url: Annotated[str, Field(min_length=1)]


class ListQuery(Body):
    """The query of a list of videos."""

    after: str | None = None
    limit: Annotated[int, Field(ge=1, le=100), FROM_TEXT] = 20
    order: Literal["asc", "desc"] = "desc"


class ContentQuery(Body):
    """The query for a file of a video."""

    variant: Literal["video", "thumbnail"] = "video"


# Bodies that a server sends


class VideoFailure(Reply):
    code: str
    message: str


class Video(Reply):
    """The state of a video."""

    id: str
    object: Literal["video"]
    created_at: int
    completed_at: int | None
    expires_at: Annotated[int | None, Field(description="Unix time in seconds at which the file is deleted.")]
    model: str
    status: VideoStatus
    progress: Annotated[int, Field(ge=0, le=100)]
    prompt: str | None
    seconds: str
    size: str
    error: VideoFailure | None
    # Not part of OpenAI's API; its clients keep unknown keys. The image API has the name ``revised_prompt``.
    revised_prompt: Annotated[str | None, Field(description="The rewritten prompt, if it was rewritten.")] = None
    nsfw: Annotated[bool | None, Field(description="Whether any frame was flagged; absent if unchecked.")] = None
    seed: Annotated[int | None, Field(description="The seed that is used.")] = None
    seed_text: Annotated[str | None, Field(description="The seed as a string, if it is 2^53 or more.")] = None


class VideoList(Reply):
    object: Literal["list"]
    data: list[Video]
    has_more: bool
    first_id: str | None
    last_id: str | None


class VideoDeleted(Reply):
    id: str
    object: Literal["video.deleted"]
    deleted: Annotated[bool, Field(description="Also true for a video that was cancelled, whose record stays.")]


class Model(Reply):
    """A model that generates videos."""

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


# Answers that a client reads, with only the fields that we rely on


class ErrorAnswer(Answer):
    code: str | int | None = None  # a number in vLLM-Omni; absent in SGLang
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
