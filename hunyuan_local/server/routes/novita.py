"""Novita's routes; what their bodies look like stands in :mod:`hunyuan_local.wires`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from ...wires import novita, schemas
from ..bodies import JsonBody
from ..documentation import query, refusals
from . import BaseUrl, Service, take

router = APIRouter(tags=["Novita"])


@router.post(
    novita.SUBMIT_PATH,
    response_model=schemas.TaskSubmitted,
    responses=refusals(novita.NAME, "invalid", "too_large", "rate_limited"),
)
async def submit(request: Request, body: JsonBody, service: Service, base_url: BaseUrl) -> JSONResponse:
    """Make a video."""
    _, view = await take(novita, request, body, service, base_url, "link")
    return JSONResponse(novita.submission_to_wire(view, base_url))


@router.get(
    novita.RESULT_PATH,
    response_model=schemas.TaskResult,
    responses=refusals(novita.NAME, "invalid", "not_found"),
    openapi_extra=query(novita.ResultQuery),
)
def result(request: Request, service: Service, base_url: BaseUrl) -> JSONResponse:
    """The state of a video."""
    job = service.get(novita.result_from_query(request.query_params))
    return JSONResponse(novita.job_to_wire(service.view(job, base_url), base_url))
