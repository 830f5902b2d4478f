"""The WaveSpeedAI dialect: ``wavespeed-ai/hunyuan-video/t2v`` and ``.../i2v`` as documented on their API pages.

Reference: https://wavespeed.ai/docs/docs-api/wavespeed-ai/hunyuan-video-t2v; options missing from that page (sync
mode, base64 output, webhooks, delete) are documented on the general pages.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from ..capabilities import Capabilities, settle
from ..errors import FieldProblem, InvalidRequestError
from ..schema import FailureKind, GenerationRequest, JobStatus, JobView
from .base import (
    HTTP_STATUSES,
    Fault,
    Submission,
    WireRequest,
    known,
    make_request,
    read_answer,
    read_body,
    read_query,
    unless_none,
)
from .wavespeed_models import (
    SUCCESS,
    CommonBody,
    DeletedAnswer,
    Prediction,
    PredictionEvent,
    PredictionReply,
    PredictionStatus,
    PredictionTimings,
    PredictionUrls,
    ResultAnswer,
    SubmissionBody,
    SubmissionQuery,
    SubmittedAnswer,
    WaveSpeedFault,
)
from .wording import Said

NAME = "wavespeed"
MODEL = "wavespeed-ai/hunyuan-video/t2v"
SUBMIT_PATH = f"/api/v3/{MODEL}"
IMAGE_MODEL = "wavespeed-ai/hunyuan-video/i2v"
IMAGE_SUBMIT_PATH = f"/api/v3/{IMAGE_MODEL}"
RESULT_PATH = "/api/v3/predictions/{job_id}/result"
SHORT_RESULT_PATH = "/api/v3/predictions/{job_id}"
DELETE_PATH = "/api/v3/predictions/delete"
WEBHOOK_RETRIES = 3
WEBHOOK_TIMEOUT_S = 10.0  # our choice: not documented
FPS = 24  # 5 and 10 seconds are 121 and 241 frames
IMAGE_CAPABILITIES = Capabilities(
    fields=frozenset({"prompt", "image", "width", "height", "seed", "num_inference_steps", "num_frames"}),
    sizes=((1280, 720), (720, 1280)),
    steps=(2, 30),
    frames=None,
    frame_counts=(121, 241),
    seeds=(0, 2**31 - 1),
    takes_image=True,
    image_sizes=((1280, 720), (720, 1280)),
    defaults={"width": 1280, "height": 720, "num_inference_steps": 30, "num_frames": 121},
    price_usd=0.40,
    price_source="the model's page at wavespeed.ai; check it before relying on it",
)
CAPABILITIES = Capabilities(
    fields=frozenset({"prompt", "width", "height", "seed", "num_inference_steps"}),
    sizes=((1280, 720), (720, 1280)),
    steps=(2, 30),
    frames=None,
    seeds=(0, 2**31 - 1),
    with_image=IMAGE_CAPABILITIES,
    defaults={"width": 1280, "height": 720, "num_inference_steps": 30},
    price_usd=0.40,
    price_source="the model's page at wavespeed.ai; check it before relying on it",
)

_SIZE = re.compile(r"(\d{1,5})\*(\d{1,5})")
_WORDS: dict[JobStatus, PredictionStatus] = {
    "queued": "created",
    "running": "processing",
    "succeeded": "completed",
    "failed": "failed",
    "canceled": "failed",  # the API has no such status, and its clients would keep polling on an unknown one
}
_STATUSES: dict[str, JobStatus] = {
    "created": "queued",
    "processing": "running",
    "completed": "succeeded",
    "failed": "failed",
}
_FAILURE_CODES: dict[FailureKind, int] = {"moderation": 1200, "invalid": 1401, "execution": 1403, "timeout": 5004}


def result_path(job_id: str) -> str:
    """Path of the state of a job."""
    return RESULT_PATH.format(job_id=quote(job_id, safe=""))


def model_of(request: GenerationRequest | None) -> str:
    """The model that runs a request."""
    return MODEL if request is None or request.image is None else IMAGE_MODEL


def submit_path(request: GenerationRequest) -> str:
    """Path of the submission of a request."""
    return f"/api/v3/{model_of(request)}"


def request_to_wire(request: GenerationRequest, *, allow_loss: bool = False) -> WireRequest:
    """The body of a submission; its image, if it has one, is described in words until it has an address.

    Raises:
        RequestLossError: the service does not support the request, and ``allow_loss`` is false.
    """
    fitted = settle(request, NAME, CAPABILITIES, allow_loss=allow_loss)
    return WireRequest(_body(fitted.request), fitted.request, fitted.losses)


def request_from_wire(body: object, query: Mapping[str, str] | None = None, *, relaxed: bool = False) -> Submission:
    """Parse a received submission, with the documented defaults and, unless ``relaxed``, the documented ranges.

    Raises:
        InvalidRequestError: names each invalid field as the dialect does.
    """
    fields = read_body(SubmissionBody, body)
    size, said = size_from_wire(fields.size)
    request = make_request(NAME, CAPABILITIES, said, relaxed, **common_fields(fields), **size)
    return submission_of(request, fields, query, said)


def size_from_wire(size: str) -> tuple[dict[str, int], dict[str, Said]]:
    """Width and height in a submission's size, and how it says them.

    Raises:
        InvalidRequestError: it has another form.
    """
    sides = _SIZE.fullmatch(size)
    if sides is None:
        raise InvalidRequestError([FieldProblem("size", size, "must be width*height, such as 1280*720")])
    said = {name: Said("size", size, part=name) for name in ("width", "height")}
    return {"width": int(sides[1]), "height": int(sides[2])}, said | {"size": Said("size", size)}


def common_fields(fields: CommonBody) -> dict[str, Any]:
    """The fields of a request that every submission has."""
    return {
        "prompt": fields.prompt,
        "seed": None if fields.seed == -1 else fields.seed,
        "num_inference_steps": fields.num_inference_steps,
        "rewrite": fields.rewrite,
    }


def submission_of(
    request: GenerationRequest, fields: CommonBody, query: Mapping[str, str] | None, said: Mapping[str, Said]
) -> Submission:
    """The submission with this request, answered as the fields and the query say.

    Raises:
        InvalidRequestError: the webhook contradicts another field.
    """
    webhook = read_query(SubmissionQuery, query or {}).webhook
    if fields.enable_base64_output and webhook:
        rule = "cannot be combined with a webhook; remove one of them"
        raise InvalidRequestError([FieldProblem("enable_base64_output", True, rule)])
    return Submission(request, fields.enable_sync_mode, fields.enable_base64_output, webhook, said)


def submission_to_wire(job: JobView, base_url: str) -> PredictionReply:
    """The answer to a submission: the state of the job."""
    return job_to_wire(job, base_url)


def submission_from_wire(body: object) -> str:
    """The id of the task created by a submission.

    Raises:
        InvalidAnswerError: the answer has no id.
    """
    return read_answer(SubmittedAnswer, body, NAME).data.id


def job_to_wire(job: JobView, base_url: str) -> PredictionReply:
    """The state of a job in the envelope of every successful answer."""
    return PredictionReply(**SUCCESS, data=prediction_to_wire(job, base_url))


def unfinished_to_wire(job: JobView, base_url: str) -> PredictionReply:
    """The answer to a synchronous submission that timed out: the task continues and can be polled."""
    return job_to_wire(job.model_copy(update={"status": "running", "failure": "timeout"}), base_url)


def prediction_to_wire(job: JobView, base_url: str) -> Prediction:
    """The state of a job without the envelope, as in lists and webhooks."""
    return Prediction(
        id=job.job_id,
        model=model_of(job.request),
        outputs=list(job.outputs) if job.status == "succeeded" else [],
        urls=PredictionUrls(get=base_url.rstrip("/") + result_path(job.job_id)),
        has_nsfw_contents=list(job.nsfw),
        status=_WORDS[job.status],
        created_at=_timestamp(job.created_at),
        # WaveSpeed's client treats "HTTP 5.." and "HTTP 429" in this text as temporary errors and runs the task again.
        error=re.sub(r"HTTP (?=5|429)", "HTTP status ", job.error),
        timings=PredictionTimings(inference=round((job.inference_s or 0) * 1000)),
        **unless_none(code=None if job.failure is None else _FAILURE_CODES.get(job.failure)),
    )


def job_from_wire(body: object) -> JobView:
    """Parse the state of a job from the service's answer.

    Raises:
        InvalidAnswerError: a field is missing or has the wrong type, or the status is unknown.
    """
    data = read_answer(ResultAnswer, body, NAME).data
    failures: dict[int | None, FailureKind] = {code: kind for kind, code in _FAILURE_CODES.items()}
    milliseconds = data.timings.inference if data.timings else None
    return JobView(
        job_id=data.id,
        status=known(_STATUSES, data.status, NAME),
        created_at=_moment(data.created_at),
        outputs=tuple(data.outputs or ()),
        error=data.error or "",
        failure=failures.get(data.code),
        inference_s=milliseconds / 1000 if milliseconds and 0 < milliseconds < math.inf else None,  # 0 until it is done
        nsfw=tuple(data.has_nsfw_contents or ()),
    )


def fault_to_wire(fault: Fault) -> tuple[int, WaveSpeedFault]:
    """HTTP status and body of a failed call."""
    code = HTTP_STATUSES[fault.kind]
    # The format is not documented; WaveSpeed's clients read `message` or `error`.
    return code, WaveSpeedFault(code=code, message=fault.message, error=fault.message)


def fault_from_wire(status: int, body: object) -> Fault:
    """Parse the service's answer to a failed call."""
    kinds = {code: kind for kind, code in HTTP_STATUSES.items()}
    kind = kinds.get(status, "internal" if status >= 500 else "invalid")
    said = body if isinstance(body, Mapping) else {}
    return Fault(kind, str(said.get("message") or said.get("error") or ""), nothing_made=status < 500)


def delete_to_wire(job_ids: list[str]) -> dict[str, Any]:
    """The body that deletes tasks, including running ones."""
    return {"ids": job_ids}


def deleted_from_wire(body: object) -> int:
    """The number of deleted tasks.

    Raises:
        InvalidAnswerError: the answer has no such number.
    """
    return read_answer(DeletedAnswer, body, NAME).data.deleted_count


def _timestamp(moment: datetime | None) -> str:
    """Such as 2023-04-01T12:34:56.789Z; empty if unknown."""
    return "" if moment is None else moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _moment(timestamp: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(timestamp) if timestamp else None
        return moment.replace(tzinfo=UTC) if moment and moment.tzinfo is None else moment
    except ValueError:  # nothing depends on this field, so ignore an invalid value
        return None


def webhook_to_wire(job: JobView, base_url: str) -> PredictionEvent:
    """The body of the webhook at the end of a job: its state without the envelope, and the submission."""
    request = job.request
    if request is not None and request.original_prompt is not None:
        request = request.replace(prompt=request.original_prompt, original_prompt=None)
    asked = {} if request is None else _body(CAPABILITIES.fill(request))
    return PredictionEvent(**prediction_to_wire(job, base_url).to_json(), input=asked)


def webhook_headers(event_id: str, sent_at: int, body: bytes, secret: str) -> dict[str, str]:
    """Headers that sign a webhook, as documented on the page "Verifying Webhooks".

    The signature is HMAC-SHA256 over ``{event_id}.{sent_at}.{body}``.

    Args:
        event_id: the same for every attempt to deliver one event, so that receivers can detect duplicates.
        sent_at: Unix time in seconds; receivers reject events older than 300 s.
        secret: ``whsec_...``; the key is the part after the prefix, as text, not decoded.
    """
    key = secret.removeprefix("whsec_").encode()
    signature = hmac.new(key, f"{event_id}.{sent_at}.".encode() + body, hashlib.sha256).hexdigest()
    return {"webhook-id": event_id, "webhook-timestamp": str(sent_at), "webhook-signature": f"v3,{signature}"}


def _body(request: GenerationRequest) -> dict[str, Any]:
    """The body for a request with size and steps set."""
    body = {
        "prompt": request.prompt,
        "size": f"{request.width}*{request.height}",
        "seed": -1 if request.seed is None else request.seed,
        "num_inference_steps": request.num_inference_steps,
    }
    if (image := request.image) is not None:
        assert request.num_frames is not None  # has a default
        seconds = (request.num_frames - 1) / FPS
        duration = int(seconds) if seconds.is_integer() else seconds
        body |= {"image": f"<{image.format} {image.width}x{image.height}, sha256:{image.sha256}>", "duration": duration}
    return body | ({"rewrite": request.rewrite} if request.awaits_rewriting else {})
