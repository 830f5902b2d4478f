"""What a server of each dialect answers, and what submissions may say, as schemas for its documentation.

Answers are made by the dialects' own functions; that each fits its model here, and has no other
field, is the tests' to prove. Nothing is read with these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..capabilities import Capabilities
from ..schema import MAX_SIDE, SIZE_MULTIPLE
from . import novita, openai, wavespeed
from .base import Body


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Envelope(_Reply):
    code: Literal[200]
    message: Literal["success"]


# WaveSpeed


class PredictionUrls(_Reply):
    get: Annotated[str, Field(description="Where the state is asked for.")]


class PredictionTimings(_Reply):
    inference: Annotated[int, Field(description="Computation in milliseconds; 0 until it is done.")]


class Prediction(_Reply):
    """The state of a task."""

    id: str
    model: str
    outputs: Annotated[list[str], Field(description="URLs, or base64 where that was asked for; empty until done.")]
    urls: PredictionUrls
    has_nsfw_contents: Annotated[list[bool], Field(description="Whether its frames were flagged; empty if unchecked.")]
    status: Literal["created", "processing", "completed", "failed"]
    created_at: Annotated[str, Field(description="ISO 8601, in UTC.")]
    error: Annotated[str, Field(description="Empty unless it failed.")]
    timings: PredictionTimings
    code: Annotated[
        int | None, Field(description="There if it failed (1200, 1401, 1403, 5004), or a wait timed out (5004).")
    ] = None


class PredictionReply(_Envelope):
    data: Prediction


class PredictionPage(_Reply):
    page: int
    items: list[Prediction]


class PredictionListReply(_Envelope):
    data: PredictionPage


class DeletedCount(_Reply):
    deleted_count: Annotated[int, Field(description="Cancelled ones included.")]


class PredictionsDeletedReply(_Envelope):
    data: DeletedCount


class Balance(_Reply):
    balance: Annotated[float, Field(description="Always the same: nothing is paid for here.")]


class BalanceReply(_Envelope):
    data: Balance


class WebhookSecret(_Reply):
    secret: Annotated[str, Field(description="whsec_ and the key; the key is used as it stands, not decoded.")]


class WebhookSecretReply(_Envelope):
    data: WebhookSecret


class WaveSpeedFault(_Reply):
    code: int
    message: str
    error: str


# Novita


class TaskSubmitted(_Reply):
    task_id: str


class Task(_Reply):
    task_id: str
    task_type: str
    status: Literal["TASK_STATUS_QUEUED", "TASK_STATUS_PROCESSING", "TASK_STATUS_SUCCEED", "TASK_STATUS_FAILED"]
    reason: Annotated[str, Field(description="Empty unless it failed.")]
    eta: Annotated[int, Field(ge=0, description="Seconds left by measured speed; 0 while nothing is measured.")]
    progress_percent: Annotated[int, Field(ge=0, le=100)]


class TaskVideo(_Reply):
    video_url: str
    video_url_ttl: Annotated[str, Field(description="Seconds for which the URL works.")]
    video_type: Literal["mp4"]


class TaskExtra(_Reply):
    seed: Annotated[str | None, Field(description="The seed that is used.")] = None
    nsfw: Annotated[bool | None, Field(description="There if frames were checked: whether any was flagged.")] = None


class TaskResult(_Reply):
    """The state of a task."""

    task: Task
    images: Annotated[list[str], Field(max_length=0)]
    videos: list[TaskVideo]
    extra: TaskExtra


class NovitaFault(_Reply):
    code: int
    reason: str
    message: str
    metadata: dict[str, str]


# OpenAI


class VideoFailure(_Reply):
    code: str
    message: str


class Video(_Reply):
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
    seed: Annotated[int | None, Field(description="The seed that is used.")] = None
    nsfw: Annotated[bool | None, Field(description="There if frames were checked: whether any was flagged.")] = None


class VideoList(_Reply):
    object: Literal["list"]
    data: list[Video]
    has_more: bool
    first_id: str | None
    last_id: str | None


class VideoDeleted(_Reply):
    id: str
    object: Literal["video.deleted"]
    deleted: Annotated[bool, Field(description="Also true of a video that was cancelled; its record stays.")]


class OpenAIError(_Reply):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIFault(_Reply):
    error: OpenAIError


FAULTS: dict[str, type[BaseModel]] = {
    wavespeed.NAME: WaveSpeedFault,
    novita.NAME: NovitaFault,
    openai.NAME: OpenAIFault,
}


# Submissions

_SIDE = {"minimum": SIZE_MULTIPLE, "maximum": MAX_SIDE, "multipleOf": SIZE_MULTIPLE}


def submission_schema(dialect: str, relaxed: bool, longest_prompt: int) -> dict[str, Any]:
    """JSON Schema of a submission in a dialect, with the ranges that a server holds it to.

    Args:
        relaxed: as in ``request_from_wire``.
        longest_prompt: in characters.
    """
    match dialect:
        case wavespeed.NAME:
            return _wavespeed_schema(Capabilities() if relaxed else wavespeed.CAPABILITIES, longest_prompt)
        case novita.NAME:
            return _novita_schema(Capabilities() if relaxed else novita.CAPABILITIES, longest_prompt)
        case openai.NAME:
            return _openai_schema(openai.CAPABILITIES, longest_prompt)
    raise ValueError(f"dialect={dialect!r}: not known; known are {', '.join(FAULTS)}")


def form_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The same for a form, whose fields are there or not, but never null."""
    fields = {name: without_null(field) for name, field in schema["properties"].items()}
    return {**schema, "properties": fields}


def _wavespeed_schema(limits: Capabilities, longest_prompt: int) -> dict[str, Any]:
    sizes = [f"{width}*{height}" for width, height in limits.sizes or ()]
    size = {"enum": sizes} if sizes else {"pattern": r"^\d{2,5}\*\d{2,5}$"}
    ranges = {"size": size, "num_inference_steps": _span(*limits.steps), "seed": _span(-1, limits.seeds[1])}
    return _narrowed(wavespeed.SubmissionBody, ranges, longest_prompt)


def _novita_schema(limits: Capabilities, longest_prompt: int) -> dict[str, Any]:
    sides = sorted({side for size in limits.sizes or () for side in size})
    side = {"enum": sides} if sides else _SIDE
    ranges = {"width": side, "height": side, "steps": _span(*limits.steps), "seed": _span(-1, limits.seeds[1])}
    ranges["frames"] = _span(*limits.frames)
    pairs = [{"properties": {"width": {"const": w}, "height": {"const": h}}} for w, h in limits.sizes or ()]
    return ({"oneOf": pairs} if pairs else {}) | _narrowed(
        novita.SubmissionBody, ranges, min(longest_prompt, limits.prompt_characters or longest_prompt)
    )


def _openai_schema(limits: Capabilities, longest_prompt: int) -> dict[str, Any]:
    scale = {"minimum": 0, "maximum": 100}
    ranges = {
        "size": {"pattern": r"^\d{2,5}x\d{2,5}$"},
        "width": _SIDE,
        "height": _SIDE,
        "num_frames": _span(*limits.frames),
        "num_inference_steps": _span(*limits.steps),
        "seed": _span(-1, limits.seeds[1]),
        "fps": _span(1, 240),
        "guidance_scale": scale,
        "true_cfg_scale": scale | {"minimum": 1},
        "flow_shift": {"exclusiveMinimum": 0, "maximum": 100},
        "negative_prompt": {"maxLength": longest_prompt},
    }
    schema = _narrowed(openai.SubmissionBody, ranges, longest_prompt)
    options = [{"type": "object"}, {"type": "string", "pattern": r"^\s*\{"}, {"type": "null"}]
    extras = {"description": "More fields, or JSON of them.", "anyOf": options}
    schema["properties"] |= {name: extras for name in sorted(openai.EXTRAS)}
    return schema


def _narrowed(model: type[Body], ranges: Mapping[str, Mapping[str, Any]], longest_prompt: int) -> dict[str, Any]:
    """The schema of a received body, with its fields held to the given ranges."""
    schema = model.model_json_schema()
    fields = _inlined(schema["properties"], schema.pop("$defs", {}))
    for name, span in ranges.items():
        options = fields[name].get("anyOf")
        for field in [fields[name]] if options is None else [x for x in options if x["type"] != "null"]:
            field |= span
    fields["prompt"] = {"type": "string", "minLength": 1, "maxLength": longest_prompt, "pattern": r"\S"}
    return schema | {"properties": fields, "required": sorted({*schema.get("required", []), "prompt"})}


def _inlined(part: Any, definitions: Mapping[str, Any]) -> Any:
    """The same without references, which would lead elsewhere in a larger document."""
    if isinstance(part, list):
        return [_inlined(item, definitions) for item in part]
    if not isinstance(part, dict):
        return part
    own = {key: _inlined(value, definitions) for key, value in part.items() if key != "$ref"}
    if "$ref" not in part:
        return own
    return _inlined(definitions[part["$ref"].removeprefix("#/$defs/")], definitions) | own


def without_null(field: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a field that may be left out, but is never null."""
    options = [option for option in field.get("anyOf", []) if option.get("type") != "null"]
    rest = {key: value for key, value in field.items() if key not in ("anyOf", "default")}
    return rest | (options[0] if len(options) == 1 else {"anyOf": options} if options else {})


def _span(low: int, high: int | None) -> dict[str, int]:
    return {"minimum": low} if high is None else {"minimum": low, "maximum": high}
