"""The Novita dialect: ``hunyuan-video-fast``, and the task results that all Novita models share.

Reference: https://novita.ai/docs/api-reference/model-apis-hunyuan-video-fast; comments mark our choice where the
documentation and the published clients differ.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal

from ..capabilities import Capabilities, settle
from ..schema import GenerationRequest, JobStatus, JobView
from .base import (
    Fault,
    FaultKind,
    Submission,
    WireRequest,
    known,
    make_request,
    read_answer,
    read_body,
    read_query,
    unless_none,
)
from .novita_models import (
    DebugInfoAnswer,
    NovitaFault,
    ResultAnswer,
    ResultQuery,
    SubmissionBody,
    SubmittedAnswer,
    Task,
    TaskEvent,
    TaskExtra,
    TaskResult,
    TaskStatus,
    TaskSubmitted,
    TaskVideo,
)
from .wording import Said

NAME = "novita"
MODEL = "hunyuan-video-fast"
SUBMIT_PATH = f"/v3/async/{MODEL}"
RESULT_PATH = "/v3/async/task-result"
WEBHOOK_EVENT: Literal["ASYNC_TASK_RESULT"] = "ASYNC_TASK_RESULT"
WEBHOOK_RETRIES = 5
WEBHOOK_TIMEOUT_S = 5.0
CAPABILITIES = Capabilities(
    fields=frozenset({"prompt", "width", "height", "seed", "num_inference_steps", "num_frames"}),
    sizes=((1280, 720), (720, 1280)),
    steps=(2, 30),
    # The documentation has `frames` only in its example (85); an older version lists the range 85 to 129.
    frames=(85, 129),
    seeds=(0, 9_999_999_999),
    prompt_characters=2000,
    # The API requires size and steps; these are the values of the documented example.
    defaults={"width": 1280, "height": 720, "num_inference_steps": 30, "num_frames": 85},
)

_DIGITS = re.compile(r"[0-9]{1,20}")
_TASK_TYPE = "HUNYUAN_VIDEO_FAST"
_WORDS: dict[JobStatus, TaskStatus] = {
    "queued": "TASK_STATUS_QUEUED",
    "running": "TASK_STATUS_PROCESSING",
    "succeeded": "TASK_STATUS_SUCCEED",
    "failed": "TASK_STATUS_FAILED",
    "canceled": "TASK_STATUS_FAILED",  # Novita's Python client knows only these four statuses
}
_STATUSES: dict[str, JobStatus] = {
    "TASK_STATUS_QUEUED": "queued",
    "TASK_STATUS_PROCESSING": "running",
    "TASK_STATUS_SUCCEED": "succeeded",
    "TASK_STATUS_FAILED": "failed",
}
_FAULTS: dict[FaultKind, tuple[int, str]] = {
    "no_key": (400, "MISSING_API_KEY"),
    "invalid": (400, "INVALID_REQUEST_BODY"),
    "unauthorized": (403, "INVALID_API_KEY"),
    "forbidden": (403, "FORBIDDEN"),
    "not_found": (404, "TASK_NOT_FOUND"),
    "method_not_allowed": (405, "METHOD_NOT_ALLOWED"),
    "conflict": (409, "CONFLICT"),
    "too_large": (413, "REQUEST_BODY_TOO_LARGE"),
    "rate_limited": (429, "RATE_LIMIT_EXCEEDED"),
    "internal": (500, "CREATE_TASK_FAILED"),
    "not_supported": (501, "NOT_SUPPORTED"),
    "unavailable": (503, "SERVICE_UNAVAILABLE"),
}
_REASONS: dict[str, FaultKind] = {reason: kind for kind, (_, reason) in _FAULTS.items()}


def result_query(job_id: str) -> dict[str, str]:
    """The query for the state of a job."""
    return {"task_id": job_id}


def result_from_query(query: Mapping[str, str]) -> str:
    """The job id in a query.

    Raises:
        InvalidRequestError: the query has no id.
    """
    return read_query(ResultQuery, query).task_id


def request_to_wire(request: GenerationRequest, *, allow_loss: bool = False) -> WireRequest:
    """The body of a submission.

    Raises:
        RequestLossError: the service does not support the request, and ``allow_loss`` is false.
    """
    fitted = settle(request, NAME, CAPABILITIES, allow_loss=allow_loss)
    held = fitted.request
    body: dict[str, Any] = {
        "model_name": MODEL,
        "width": held.width,
        "height": held.height,
        "seed": -1 if held.seed is None else held.seed,
        "steps": held.num_inference_steps,
        "prompt": held.prompt,
        "frames": held.num_frames,
    }
    if held.awaits_rewriting:
        body["extra"] = {"rewrite": held.rewrite}
    return WireRequest(body, held, fitted.losses)


def request_from_wire(body: object, query: Mapping[str, str] | None = None, *, relaxed: bool = False) -> Submission:
    """Parse a received submission, with the documented ranges unless ``relaxed``; the query is ignored.

    Raises:
        InvalidRequestError: names each invalid field as the dialect does.
    """
    fields = read_body(SubmissionBody, body)
    webhook = fields.extra.webhook
    said = {
        "num_inference_steps": Said("steps", fields.steps),
        "num_frames": Said("frames", fields.frames),
        "size": Said("width", fields.width, meaning=f"the height is {fields.height}"),
        "rewrite": Said("extra.rewrite", fields.extra.rewrite),
        "webhook": Said("extra.webhook.url", webhook.url if webhook else None),
    }
    request = make_request(
        NAME,
        CAPABILITIES,
        said,
        relaxed,
        prompt=fields.prompt,
        width=fields.width,
        height=fields.height,
        seed=None if fields.seed == -1 else fields.seed,
        num_inference_steps=fields.steps,
        num_frames=fields.frames,
        rewrite=fields.extra.rewrite,
    )
    return Submission(request, webhook=webhook.url if webhook else None, said=said)


def submission_to_wire(job: JobView, base_url: str) -> TaskSubmitted:
    """The answer to a submission: the id of the task."""
    return TaskSubmitted(task_id=job.job_id)


def submission_from_wire(body: object) -> str:
    """The id of the task created by a submission.

    Raises:
        InvalidAnswerError: the answer has no id.
    """
    return read_answer(SubmittedAnswer, body, NAME).task_id


def job_to_wire(job: JobView, base_url: str) -> TaskResult:
    """The state of a job; ``base_url`` is unused, since the output URLs are absolute."""
    done = job.status == "succeeded"
    ttl = "" if job.output_ttl_s is None else str(job.output_ttl_s)
    return TaskResult(
        task=Task(
            task_id=job.job_id,
            task_type=_TASK_TYPE,
            status=_WORDS[job.status],
            reason=job.error,
            eta=round(job.eta_s or 0),
            progress_percent=100 if done else job.progress_percent or 0,
        ),
        # Empty lists and an object for `extra`, since Novita's Python client fails on null.
        images=[],
        videos=[TaskVideo(video_url=url, video_url_ttl=ttl, video_type="mp4") for url in (job.outputs if done else ())],
        extra=TaskExtra(
            **unless_none(
                seed=None if job.seed is None else str(job.seed),
                nsfw=any(job.nsfw) if job.nsfw else None,
            )
        ),
    )


def job_from_wire(body: object) -> JobView:
    """Parse the state of a job from the service's answer.

    Raises:
        InvalidAnswerError: a field is missing or has the wrong type, or the status is unknown.
    """
    result = read_answer(ResultAnswer, body, NAME)
    task, videos = result.task, result.videos or []
    status = known(_STATUSES, task.status, NAME)
    return JobView(
        job_id=task.task_id,
        status=status,
        progress_percent=None if task.progress_percent is None else round(task.progress_percent),
        eta_s=task.eta if task.eta and 0 < task.eta < math.inf else None,  # 0 also means unknown
        outputs=tuple(video.video_url for video in videos),
        output_ttl_s=_number(videos[0].video_url_ttl) if videos else None,
        error=task.reason or "",
        failure="execution" if status == "failed" else None,
        seed=_number(result.extra.seed) if result.extra else None,
        inference_s=_ran_s(result.extra.debug_info) if result.extra else None,
    )


def _ran_s(info: DebugInfoAnswer | None) -> float | None:
    """Computation time in seconds, if the service reports it."""
    if info is None or info.complete_time_ms <= info.execute_time_ms:
        return None
    return (info.complete_time_ms - info.execute_time_ms) / 1000


def webhook_to_wire(job: JobView, base_url: str) -> TaskEvent:
    """The body of the webhook at the end of a job."""
    return TaskEvent(event_type=WEBHOOK_EVENT, payload=job_to_wire(job, base_url))


def webhook_headers(event_id: str, sent_at: int, body: bytes, secret: str) -> dict[str, str]:
    """No headers: the service does not document signatures or event ids."""
    return {}


def fault_to_wire(fault: Fault) -> tuple[int, NovitaFault]:
    """HTTP status and body of a failed call."""
    status, reason = _FAULTS[fault.kind]
    metadata = {} if fault.field is None else {"field": fault.field}
    return status, NovitaFault(code=status, reason=reason, message=fault.message, metadata=metadata)


def fault_from_wire(status: int, body: object) -> Fault:
    """Parse the service's answer to a failed call; its ``reason`` determines the kind, otherwise the HTTP status."""
    said = body if isinstance(body, Mapping) else {}
    # One documentation page gives 401 for a wrong key.
    by_status = {code: kind for kind, (code, _) in _FAULTS.items()} | {401: "unauthorized", 403: "unauthorized"}
    kind = _REASONS.get(str(said.get("reason"))) or by_status.get(status, "internal" if status >= 500 else "invalid")
    metadata = said.get("metadata")
    field = metadata.get("field") if isinstance(metadata, Mapping) else None
    message = str(said.get("message") or said.get("reason") or "")
    # CREATE_TASK_FAILED is documented and means that no task was created.
    nothing_made = status < 500 or said.get("reason") == "CREATE_TASK_FAILED"
    return Fault(kind, message, field if isinstance(field, str) else None, nothing_made)


def _number(written: str | int | None) -> int | None:
    """An integer, possibly in quotes; None for any other value."""
    return int(str(written)) if _DIGITS.fullmatch(str(written)) else None
