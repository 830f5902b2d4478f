"""Novita's routes; :mod:`hunyuan_local.wires` defines the bodies."""

from __future__ import annotations

from fastapi import APIRouter, Request

from ...wires import novita, novita_models
from ..bodies import JsonBody
from ..documentation import query, refusals
from ..error_answers import ReplyResponse
from . import BaseUrl, Service, take

router = APIRouter(tags=["Novita"])


@router.post(
    novita.SUBMIT_PATH,
    response_model=novita_models.TaskSubmitted,
    responses=refusals(novita.NAME, "invalid", "too_large", "rate_limited"),
)
async def submit(request: Request, body: JsonBody, service: Service, base_url: BaseUrl) -> ReplyResponse:
    """Generate a video."""
    _, view = await take(novita, request, body, service, base_url, "link")
    return ReplyResponse(novita.submission_to_wire(view, base_url))


@router.get(
    novita.RESULT_PATH,
    response_model=novita_models.TaskResult,
    responses=refusals(novita.NAME, "invalid", "not_found"),
    openapi_extra=query(novita_models.ResultQuery),
)
def result(request: Request, service: Service, base_url: BaseUrl) -> ReplyResponse:
    """The state of a video."""
    job = service.get(novita.result_from_query(request.query_params))
    return ReplyResponse(novita.job_to_wire(service.view(job, base_url), base_url))
