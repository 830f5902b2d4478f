"""The OpenAI dialect: ``/v1/videos``, with the fields that self-hosted video servers add to it.

Reference: https://platform.openai.com/docs/api-reference/videos; the added fields are those of SGLang, vLLM-Omni and
FastVideo. OpenAI's client always sends a form; this module receives it as a mapping of strings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from ..capabilities import SETTLED_HERE, Capabilities, settle
from ..errors import FieldProblem, InvalidRequestError
from ..schema import FailureKind, GenerationRequest, JobStatus, JobView, seed_text
from .base import (
    Fault,
    FaultKind,
    Submission,
    WireRequest,
    frames_in,
    known,
    make_request,
    read_answer,
    read_body,
    unless_none,
)
from .forms import read_fields
from .json_parsing import parse_json
from .openai_models import (
    ErrorAnswer,
    ImageReference,
    OpenAIError,
    OpenAIFault,
    SubmissionBody,
    SubmittedAnswer,
    Video,
    VideoAnswer,
    VideoFailure,
    VideoStatus,
)
from .sent_image import SentFile, SentImage
from .wording import Said

NAME = "openai"
MODEL = "hunyuan-video"
SUBMIT_PATH = "/v1/videos"
RESULT_PATH = "/v1/videos/{job_id}"
CONTENT_PATH = "/v1/videos/{job_id}/content"
POLL_AFTER_HEADER = "openai-poll-after-ms"
CAPABILITIES = Capabilities(with_image=Capabilities(takes_image=True))

# Default of SGLang and vLLM-Omni if only the length in seconds is given.
_FPS = 24
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
EXTRAS = frozenset({"extra_body", "extra_params"})
IMAGE_FIELD = "input_reference"
_WORDS: dict[JobStatus, VideoStatus] = {
    "queued": "queued",
    "running": "in_progress",
    "succeeded": "completed",
    "failed": "failed",
    "canceled": "failed",  # the API has no such status, and clients wait for one of these four; see error.code
}
_STATUSES: dict[str, JobStatus] = {word: status for status, word in _WORDS.items() if status != "canceled"}
# The service is known to send the first of these; its documentation does not list any codes.
_FAILURE_CODES: dict[FailureKind, str] = {
    "moderation": "moderation_blocked",
    "invalid": "invalid_request",
    "execution": "generation_failed",
    "timeout": "timeout",
    "canceled": "canceled",
}
# HTTP status, error.type and, if documented, error.code.
_FAULTS: dict[FaultKind, tuple[int, str, str | None]] = {
    "no_key": (401, "invalid_request_error", None),
    "invalid": (400, "invalid_request_error", None),
    "unauthorized": (401, "invalid_request_error", "invalid_api_key"),
    "forbidden": (403, "request_forbidden", None),
    "not_found": (404, "invalid_request_error", None),
    "method_not_allowed": (405, "invalid_request_error", None),
    "conflict": (409, "invalid_request_error", None),
    "too_large": (413, "invalid_request_error", None),
    "rate_limited": (429, "rate_limit_error", "rate_limit_exceeded"),
    "internal": (500, "server_error", None),
    "not_supported": (501, "server_error", None),
    "unavailable": (503, "service_unavailable_error", "server_is_overloaded"),
}


def result_path(job_id: str) -> str:
    """Path of a job, for querying and deleting it."""
    return RESULT_PATH.format(job_id=quote(job_id, safe=""))


def request_to_wire(request: GenerationRequest, *, allow_loss: bool = False) -> WireRequest:
    """The body of a submission.

    Fields that are None are omitted. The length is always sent in frames: ``seconds`` is a whole number in this
    dialect, which 4k+1 frames rarely are. An image is described in words, until it has an address.
    """
    fitted = settle(request, NAME, CAPABILITIES, allow_loss=allow_loss)
    settled = set() if fitted.request.original_prompt is None else set(SETTLED_HERE)
    body = {"model": MODEL} | fitted.request.model_dump(exclude_defaults=True, exclude=settled)
    if "width" in body and "height" in body:
        body["size"] = f"{body.pop('width')}x{body.pop('height')}"
    if (image := body.pop("image", None)) is not None:
        body[IMAGE_FIELD] = {"image_url": f"<{image.format} {image.width}x{image.height}, sha256:{image.sha256}>"}
    return WireRequest(body, fitted.request, fitted.losses)


def request_from_wire(body: object, query: Mapping[str, str] | None = None, *, relaxed: bool = False) -> Submission:
    """Parse a received submission, sent as JSON or as a form, with extra fields at the top level or nested.

    The image is a file in a form, ``{"image_url": ...}`` or its text; the text is a URL, a data URI or base64.

    Raises:
        InvalidRequestError: names each invalid field as the dialect does.
    """
    given = read_fields(SubmissionBody, body, EXTRAS, frozenset({IMAGE_FIELD}))
    image = _sent_image(given)
    size, seconds = given.pop("size", None), given.pop("seconds", None)
    given.pop("model", None)
    said = {"image": Said(IMAGE_FIELD, None)}
    said["size"] = Said("width", given.get("width"), meaning=f"the height is {given.get('height')}")
    if size is not None:
        _add_size(given, size)
        said |= {name: Said("size", size, part=name) for name in ("width", "height")} | {"size": Said("size", size)}
    if seconds is not None and "num_frames" not in given:
        # Set explicitly, since the length in seconds depends on it.
        fps = min(max(given.setdefault("fps", _FPS), 1), 240)
        given["num_frames"] = count = frames_in(seconds, fps)
        sent = int(seconds) if seconds == int(seconds) else seconds
        said["num_frames"] = Said("seconds", sent, meaning=f"is {count} frames at {fps} fps")
    if given.get("seed") == -1:
        del given["seed"]
    return Submission(make_request(NAME, CAPABILITIES, said, relaxed, **given), said=said, image=image)


def _sent_image(given: dict[str, Any]) -> SentImage | None:
    """The image of a submission, removed from its fields."""
    source = given.pop(IMAGE_FIELD, None)
    if source is None:
        return None
    if isinstance(source, str) and source.lstrip().startswith("{"):
        try:
            source = parse_json(source)
        except ValueError as error:
            raise InvalidRequestError([FieldProblem(IMAGE_FIELD, source, f"is not valid JSON: {error}")]) from error
    if isinstance(source, Mapping):
        if "file_id" in source:
            rule = "file ids are not supported; send the image itself, or its address as image_url"
            raise InvalidRequestError([FieldProblem(f"{IMAGE_FIELD}.file_id", source["file_id"], rule)])
        try:
            source = read_body(ImageReference, source).image_url
        except InvalidRequestError as error:
            problems = [FieldProblem(f"{IMAGE_FIELD}.{item.field}", item.value, item.rule) for item in error.problems]
            raise InvalidRequestError(problems) from error
    if not isinstance(source, str | SentFile):
        rule = 'must be a file in a form, {"image_url": URL or data URI}, or the text of one of them'
        raise InvalidRequestError([FieldProblem(IMAGE_FIELD, source, rule)])
    return SentImage(IMAGE_FIELD, source, given.pop("image_fit", None))


def _add_size(given: dict[str, Any], size: str) -> None:
    sides = _SIZE.fullmatch(size)
    if sides is None:
        raise InvalidRequestError([FieldProblem("size", size, "must be WIDTHxHEIGHT, such as 1280x720")])
    for name, side in zip(("width", "height"), map(int, sides.groups()), strict=True):
        if given.setdefault(name, side) != side:
            rule = f"contradicts size={size}; send only one of the two"
            raise InvalidRequestError([FieldProblem(name, given[name], rule)])


def submission_to_wire(job: JobView, base_url: str) -> Video:
    """The answer to a submission: the state of the job."""
    return job_to_wire(job, base_url)


def submission_from_wire(body: object) -> str:
    """The id of the job created by a submission.

    Raises:
        InvalidAnswerError: the answer has no id.
    """
    return read_answer(SubmittedAnswer, body, NAME).id


def job_to_wire(job: JobView, base_url: str) -> Video:
    """The state of a job; it has no URL, since the file is at :data:`CONTENT_PATH`."""
    request, failed = job.request, job.status in ("failed", "canceled")
    failure = "canceled" if job.status == "canceled" else job.failure or "execution"
    completed, ttl = _unix(job.completed_at), job.output_ttl_s
    rewritten = request.prompt if request is not None and request.original_prompt is not None else None
    return Video(
        id=job.job_id,
        object="video",
        created_at=_unix(job.created_at) or 0,
        completed_at=completed,
        expires_at=None if completed is None or ttl is None else completed + ttl,
        model=job.model or MODEL,
        status=_WORDS[job.status],
        progress=100 if job.status == "succeeded" else job.progress_percent or 0,
        prompt=(request.original_prompt or request.prompt) if request else None,
        seconds=_seconds(request),
        size=f"{request.width}x{request.height}" if request and request.width and request.height else "",
        error=VideoFailure(code=_FAILURE_CODES[failure], message=job.error) if failed else None,
        **unless_none(
            revised_prompt=rewritten,
            nsfw=any(job.nsfw) if job.nsfw else None,
            seed=job.seed,
            seed_text=seed_text(job.seed),
        ),
    )


def job_from_wire(body: object) -> JobView:
    """Parse the state of a job from a server's answer.

    Raises:
        InvalidAnswerError: a field is missing or has the wrong type, or the status is unknown.
    """
    video = read_answer(VideoAnswer, body, NAME)
    status = known(_STATUSES, video.status, NAME)
    error = video.error or ErrorAnswer()
    failures = {code: kind for kind, code in _FAILURE_CODES.items()}
    failure = failures.get(str(error.code), "execution") if status == "failed" else None
    completed, expires = _moment(video.completed_at), _moment(video.expires_at)
    return JobView(
        job_id=video.id,
        status="canceled" if failure == "canceled" else status,
        created_at=_moment(video.created_at),
        completed_at=completed,
        progress_percent=None if video.progress is None else round(video.progress),
        output_ttl_s=max(0, round((expires - completed).total_seconds())) if completed and expires else None,
        error=error.message or "",
        failure=failure,
        seed=video.seed if type(video.seed) is int else None,
    )


def fault_to_wire(fault: Fault) -> tuple[int, OpenAIFault]:
    """HTTP status and body of a failed call."""
    status, word, code = _FAULTS[fault.kind]
    return status, OpenAIFault(error=OpenAIError(message=fault.message, type=word, param=fault.field, code=code))


def fault_headers(fault: Fault) -> dict[str, str]:
    """Headers that stop OpenAI's client from repeating a submission after 409, 429 and 5xx.

    A repetition is harmless only if no job can have been created.
    """
    harmless = fault.kind in ("rate_limited", "unavailable") and fault.nothing_made
    return {} if harmless else {"x-should-retry": "false"}


def fault_from_wire(status: int, body: object) -> Fault:
    """Parse a server's answer to a failed call; the HTTP status determines the kind."""
    kinds = {code: kind for kind, (code, _, _) in _FAULTS.items()}
    kind = kinds.get(status, "internal" if status >= 500 else "invalid")
    said = body if isinstance(body, Mapping) else {}
    error = said.get("error")
    if not isinstance(error, Mapping):  # such as FastAPI's {"detail": ...}, which SGLang sends unchanged
        return Fault(kind, str(error or said.get("detail") or ""), nothing_made=status < 500)
    field = error.get("param")
    nothing_made = status < 500 or error.get("code") == _FAULTS["unavailable"][2]  # no capacity, so no job was created
    return Fault(kind, str(error.get("message") or ""), field if isinstance(field, str) else None, nothing_made)


def _seconds(request: GenerationRequest | None) -> str:
    """The length in whole seconds, as the dialect requires; empty if unknown, as in SGLang."""
    if request is None or request.num_frames is None or request.fps is None:
        return ""
    return str(max(1, round(request.num_frames / request.fps)))


def _unix(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())


def _moment(seconds: float | None) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC) if seconds else None  # 0 means unknown
    except (ValueError, OverflowError, OSError):  # nothing depends on this field, so ignore an invalid value
        return None
