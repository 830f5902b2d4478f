"""WaveSpeedAI's dialect: ``wavespeed-ai/hunyuan-video/t2v``, as its API page documents it.

Reference: https://wavespeed.ai/docs/docs-api/wavespeed-ai/hunyuan-video-t2v; the options that are
not on that page (sync mode, base64 output, webhooks, delete) are on its general pages.
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
RESULT_PATH = "/api/v3/predictions/{job_id}/result"
SHORT_RESULT_PATH = "/api/v3/predictions/{job_id}"
DELETE_PATH = "/api/v3/predictions/delete"
WEBHOOK_RETRIES = 3
WEBHOOK_TIMEOUT_S = 10.0  # stated on no page
CAPABILITIES = Capabilities(
    fields=frozenset({"prompt", "width", "height", "seed", "num_inference_steps"}),
    sizes=((1280, 720), (720, 1280)),
    steps=(2, 30),
    frames=None,
    seeds=(0, 2**31 - 1),
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
    "canceled": "failed",  # it has no word for it, and its clients would poll on at one they do not know
}
_STATUSES: dict[str, JobStatus] = {
    "created": "queued",
    "processing": "running",
    "completed": "succeeded",
    "failed": "failed",
}
_FAILURE_CODES: dict[FailureKind, int] = {"moderation": 1200, "invalid": 1401, "execution": 1403, "timeout": 5004}


def result_path(job_id: str) -> str:
    """Where the state of a job is asked for."""
    return RESULT_PATH.format(job_id=quote(job_id, safe=""))


def request_to_wire(request: GenerationRequest, *, allow_loss: bool = False) -> WireRequest:
    """The body of a submission; see :mod:`hunyuan_local.wires.base`.

    Raises:
        RequestLossError: the service cannot hold the request, and ``allow_loss`` is false.
    """
    fitted = settle(request, NAME, CAPABILITIES, allow_loss=allow_loss)
    return WireRequest(_body(fitted.request), fitted.request, fitted.losses)


def request_from_wire(body: object, query: Mapping[str, str] | None = None, *, relaxed: bool = False) -> Submission:
    """A received submission, with the page's defaults and, unless ``relaxed``, its ranges.

    Raises:
        InvalidRequestError: naming each field as the page does.
    """
    fields = read_body(SubmissionBody, body)
    size = _SIZE.fullmatch(fields.size)
    if size is None:
        raise InvalidRequestError([FieldProblem("size", fields.size, "must be width*height, such as 1280*720")])
    said = {name: Said("size", fields.size, part=name) for name in ("width", "height")}
    said["size"] = Said("size", fields.size)
    request = make_request(
        NAME,
        CAPABILITIES,
        said,
        relaxed,
        prompt=fields.prompt,
        width=int(size[1]),
        height=int(size[2]),
        seed=None if fields.seed == -1 else fields.seed,
        num_inference_steps=fields.num_inference_steps,
        rewrite=fields.rewrite,
    )
    webhook = read_query(SubmissionQuery, query or {}).webhook
    if fields.enable_base64_output and webhook:
        rule = "cannot go together with a webhook; leave one of them out"
        raise InvalidRequestError([FieldProblem("enable_base64_output", True, rule)])
    return Submission(request, fields.enable_sync_mode, fields.enable_base64_output, webhook, said)


def submission_to_wire(job: JobView, base_url: str) -> PredictionReply:
    """The answer to a submission: the job's state, like every later one."""
    return job_to_wire(job, base_url)


def submission_from_wire(body: object) -> str:
    """The id of the task that a submission made.

    Raises:
        InvalidAnswerError: there is none in the answer.
    """
    return read_answer(SubmittedAnswer, body, NAME).data.id


def job_to_wire(job: JobView, base_url: str) -> PredictionReply:
    """The state of a job, in the envelope that every successful answer has."""
    return PredictionReply(**SUCCESS, data=prediction_to_wire(job, base_url))


def unfinished_to_wire(job: JobView, base_url: str) -> PredictionReply:
    """The answer to a submission that waited in vain: the task goes on, its state can be asked for."""
    return job_to_wire(job.model_copy(update={"status": "running", "failure": "timeout"}), base_url)


def prediction_to_wire(job: JobView, base_url: str) -> Prediction:
    """The state of a job alone, as it also stands in lists and webhooks."""
    return Prediction(
        id=job.job_id,
        model=MODEL,
        outputs=list(job.outputs) if job.status == "succeeded" else [],
        urls=PredictionUrls(get=base_url.rstrip("/") + result_path(job.job_id)),
        has_nsfw_contents=list(job.nsfw),
        status=_WORDS[job.status],
        created_at=_timestamp(job.created_at),
        # Its client takes "HTTP 5.." and "HTTP 429" in this text for a passing state and runs the task again.
        error=re.sub(r"HTTP (?=5|429)", "HTTP status ", job.error),
        timings=PredictionTimings(inference=round((job.inference_s or 0) * 1000)),
        **unless_none(code=None if job.failure is None else _FAILURE_CODES.get(job.failure)),
    )


def job_from_wire(body: object) -> JobView:
    """The state of a job from the service's answer.

    Raises:
        InvalidAnswerError: a field is missing or of another type, or the status word is unknown.
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
    """HTTP status and body of a refused call."""
    code = HTTP_STATUSES[fault.kind]
    # The service documents no one shape for these; its clients read `message` or `error`.
    return code, WaveSpeedFault(code=code, message=fault.message, error=fault.message)


def fault_from_wire(status: int, body: object) -> Fault:
    """What the service says of a refused call; an unknown status is the service's own fault."""
    kinds = {code: kind for kind, code in HTTP_STATUSES.items()}
    kind = kinds.get(status, "internal" if status >= 500 else "invalid")
    said = body if isinstance(body, Mapping) else {}
    return Fault(kind, str(said.get("message") or said.get("error") or ""), nothing_made=status < 500)


def delete_to_wire(job_ids: list[str]) -> dict[str, Any]:
    """The body that deletes tasks, running ones included."""
    return {"ids": job_ids}


def deleted_from_wire(body: object) -> int:
    """How many tasks were deleted.

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
    except ValueError:  # of no use to us, so its form is not the service's to get right
        return None


def webhook_to_wire(job: JobView, base_url: str) -> PredictionEvent:
    """The body of the call at a job's end: its state, without the envelope, and what was asked for."""
    request = job.request
    if request is not None and request.original_prompt is not None:
        request = request.replace(prompt=request.original_prompt, original_prompt=None)
    asked = {} if request is None else _body(request.with_defaults(CAPABILITIES.defaults))
    return PredictionEvent(**prediction_to_wire(job, base_url).to_json(), input=asked)


def webhook_headers(event_id: str, sent_at: int, body: bytes, secret: str) -> dict[str, str]:
    """What proves to the receiver that ``body`` came from here; see the page "Verifying Webhooks".

    Args:
        event_id: the same at every try of one call, so that receivers can tell repeats.
        sent_at: seconds since 1970; receivers refuse what is older than 300 s.
        secret: ``whsec_...``; the key is what follows the prefix, as text, not decoded.
    """
    key = secret.removeprefix("whsec_").encode()
    signature = hmac.new(key, f"{event_id}.{sent_at}.".encode() + body, hashlib.sha256).hexdigest()
    return {"webhook-id": event_id, "webhook-timestamp": str(sent_at), "webhook-signature": f"v3,{signature}"}


def _body(request: GenerationRequest) -> dict[str, Any]:
    """A request whose size and steps are known, in the page's words."""
    body = {
        "prompt": request.prompt,
        "size": f"{request.width}*{request.height}",
        "seed": -1 if request.seed is None else request.seed,
        "num_inference_steps": request.num_inference_steps,
    }
    return body | ({"rewrite": request.rewrite} if request.awaits_rewriting else {})
