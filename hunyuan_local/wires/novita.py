"""Novita's dialect: ``hunyuan-video-fast`` and the task results that all its models share.

Reference: https://novita.ai/docs/api-reference/model-apis-hunyuan-video-fast; where the page and
the published clients differ, the comments say what is done.
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
    # `frames` stands in the page's example (85) and not in its table; an older copy of the page
    # lists it as 85 to 129.
    frames=(85, 129),
    seeds=(0, 9_999_999_999),
    prompt_characters=2000,
    # The page requires size and steps; these are the values of its example.
    defaults={"width": 1280, "height": 720, "num_inference_steps": 30, "num_frames": 85},
)

_DIGITS = re.compile(r"[0-9]{1,20}")
_TASK_TYPE = "HUNYUAN_VIDEO_FAST"
_WORDS: dict[JobStatus, TaskStatus] = {
    "queued": "TASK_STATUS_QUEUED",
    "running": "TASK_STATUS_PROCESSING",
    "succeeded": "TASK_STATUS_SUCCEED",
    "failed": "TASK_STATUS_FAILED",
    "canceled": "TASK_STATUS_FAILED",  # its Python client knows these four alone
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
    """The query with which the state of a job is asked for."""
    return {"task_id": job_id}


def result_from_query(query: Mapping[str, str]) -> str:
    """The id of the job that a query asks for.

    Raises:
        InvalidRequestError: it names none.
    """
    return read_query(ResultQuery, query).task_id


def request_to_wire(request: GenerationRequest, *, allow_loss: bool = False) -> WireRequest:
    """The body of a submission; see :mod:`hunyuan_local.wires.base`.

    Raises:
        RequestLossError: the service cannot hold the request, and ``allow_loss`` is false.
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
    """A received submission, with the page's ranges unless ``relaxed``; the query says nothing.

    Raises:
        InvalidRequestError: naming each field as the page does.
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
    """The answer to a submission: the task's id alone."""
    return TaskSubmitted(task_id=job.job_id)


def submission_from_wire(body: object) -> str:
    """The id of the task that a submission made.

    Raises:
        InvalidAnswerError: there is none in the answer.
    """
    return read_answer(SubmittedAnswer, body, NAME).task_id


def job_to_wire(job: JobView, base_url: str) -> TaskResult:
    """The state of a job; its addresses are whole already, so ``base_url`` is not needed."""
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
        # Lists even when empty, and `extra` an object: its Python client fails at null.
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
    """The state of a job from the service's answer.

    Raises:
        InvalidAnswerError: a field is missing or of another type, or the status word is unknown.
    """
    result = read_answer(ResultAnswer, body, NAME)
    task, videos = result.task, result.videos or []
    status = known(_STATUSES, task.status, NAME)
    return JobView(
        job_id=task.task_id,
        status=status,
        progress_percent=None if task.progress_percent is None else round(task.progress_percent),
        eta_s=task.eta if task.eta and 0 < task.eta < math.inf else None,  # 0 stands for "not known" too
        outputs=tuple(video.video_url for video in videos),
        output_ttl_s=_number(videos[0].video_url_ttl) if videos else None,
        error=task.reason or "",
        failure="execution" if status == "failed" else None,
        seed=_number(result.extra.seed) if result.extra else None,
        inference_s=_ran_s(result.extra.debug_info) if result.extra else None,
    )


def _ran_s(info: DebugInfoAnswer | None) -> float | None:
    """Seconds from the begin of the computation to its end, where the service tells."""
    if info is None or info.complete_time_ms <= info.execute_time_ms:
        return None
    return (info.complete_time_ms - info.execute_time_ms) / 1000


def webhook_to_wire(job: JobView, base_url: str) -> TaskEvent:
    """The body of the call at a job's end."""
    return TaskEvent(event_type=WEBHOOK_EVENT, payload=job_to_wire(job, base_url))


def webhook_headers(event_id: str, sent_at: int, body: bytes, secret: str) -> dict[str, str]:
    """None: the service documents no signature, and no id of a call."""
    return {}


def fault_to_wire(fault: Fault) -> tuple[int, NovitaFault]:
    """HTTP status and body of a refused call."""
    status, reason = _FAULTS[fault.kind]
    metadata = {} if fault.field is None else {"field": fault.field}
    return status, NovitaFault(code=status, reason=reason, message=fault.message, metadata=metadata)


def fault_from_wire(status: int, body: object) -> Fault:
    """What the service says of a refused call: its reason's word decides, then the HTTP status."""
    said = body if isinstance(body, Mapping) else {}
    # One page of the service says 401 for a wrong key.
    by_status = {code: kind for kind, (code, _) in _FAULTS.items()} | {401: "unauthorized", 403: "unauthorized"}
    kind = _REASONS.get(str(said.get("reason"))) or by_status.get(status, "internal" if status >= 500 else "invalid")
    metadata = said.get("metadata")
    field = metadata.get("field") if isinstance(metadata, Mapping) else None
    message = str(said.get("message") or said.get("reason") or "")
    # CREATE_TASK_FAILED is documented, and says that there is no task.
    nothing_made = status < 500 or said.get("reason") == "CREATE_TASK_FAILED"
    return Fault(kind, message, field if isinstance(field, str) else None, nothing_made)


def _number(written: str | int | None) -> int | None:
    """A whole number that may stand in quotes; what is none is left unsaid."""
    return int(str(written)) if _DIGITS.fullmatch(str(written)) else None
