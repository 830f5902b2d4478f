"""Routes outside the dialects: files by signed URL, health checks and metrics."""

from __future__ import annotations

import logging
import re
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from ...errors import StoreError
from ...wires.base import Fault
from ..documentation import file_responses, refusals
from ..error_answers import SEE_LOG, LinkRefusedError, refusal
from ..signed_links import PATH, UPLOAD_PATH
from ..video_response import MP4, VideoResponse
from . import Service

logger = logging.getLogger(__name__)
router = APIRouter(tags=["Server"])

_QUERY = {
    "parameters": [
        {"name": name, "in": "query", "required": True, "schema": {"type": "string"}}
        for name in ("expires", "signature")
    ]
}
_FILE: dict[str, Any] = {
    "response_class": Response,
    "responses": file_responses(MP4) | refusals(None, "forbidden", "not_found", "internal", "unavailable"),
    "openapi_extra": _QUERY,
}


class Health(BaseModel):
    """The body of a successful health check."""

    status: str


@router.head(PATH, **_FILE)
@router.get(PATH, **_FILE)
def file(job_id: str, request: Request, service: Service) -> Response:
    """The file of a finished video, at the signed URL in its job's state."""
    query = request.query_params
    if not service.links.check(job_id, query.get("expires", ""), query.get("signature", "")):
        raise LinkRefusedError("this address is invalid or has expired; get a new one from the job's state")
    return VideoResponse(service.file(service.get(job_id)))


@router.put(
    UPLOAD_PATH,
    status_code=204,
    response_class=Response,
    responses=refusals(None, "invalid", "forbidden", "too_large", "rate_limited", "internal", "unavailable"),
    openapi_extra=_QUERY
    | {"requestBody": {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def upload(job_id: str, request: Request, service: Service) -> Response:
    """Send the file of an announced upload."""
    query = request.query_params
    is_id = re.fullmatch(r"[0-9a-f]{32}", job_id)
    if not is_id or not service.images.may_upload(job_id, query.get("expires", ""), query.get("signature", "")):
        raise LinkRefusedError("this address is invalid or has expired; announce the upload again")
    await service.images.keep(job_id, await request.body())
    return Response(status_code=204)


@router.get("/healthz", response_model=Health)
async def health() -> JSONResponse:
    """Whether the process is alive."""
    return JSONResponse({"status": "alive"})


@router.get("/readyz", response_model=Health, responses=refusals(None, "internal", "unavailable"))
def ready(request: Request, service: Service) -> JSONResponse:
    """Whether the server accepts and runs jobs; otherwise 503 with the reasons."""
    try:
        problems = service.problems()
    except StoreError as error:
        logger.error("not ready: %s", error)
        problems = [f"the job store cannot be used; {SEE_LOG}"]
    if problems:
        return refusal(request.scope["path"], Fault("unavailable", "; ".join(problems)))
    return JSONResponse({"status": "ready"})


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **refusals(None, "unauthorized", "internal", "unavailable"),
    },
)
def metrics(request: Request) -> Response:
    """Metrics for Prometheus."""
    return Response(request.app.state.metrics.render(), headers={"content-type": CONTENT_TYPE_LATEST})
