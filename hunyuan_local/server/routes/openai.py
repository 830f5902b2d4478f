"""OpenAI's routes; :mod:`hunyuan_local.wires` defines the bodies."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from ...schema import JobView
from ...wires import openai, openai_library, openai_models
from ..bodies import JsonOrFormBody
from ..documentation import file_responses, query, refusals
from ..error_answers import ReplyResponse
from ..job_view import pause_s
from ..video_response import MP4, WEBP, VideoResponse, thumbnail_response
from . import BaseUrl, Service, take

router = APIRouter(tags=["OpenAI"])

_CONTENT: dict[str, Any] = {
    "response_class": Response,
    "responses": file_responses(MP4, WEBP) | refusals(openai.NAME, "invalid", "not_found"),
    "openapi_extra": query(openai_models.ContentQuery),
}


@router.post(
    openai.SUBMIT_PATH,
    response_model=openai_models.Video,
    responses=refusals(openai.NAME, "invalid", "too_large", "rate_limited"),
)
async def submit(request: Request, body: JsonOrFormBody, service: Service, base_url: BaseUrl) -> ReplyResponse:
    """Generate a video."""
    _, view = await take(openai, request, body, service, base_url, "path")
    return _state(view, base_url)


@router.get(
    openai_library.LIST_PATH,
    response_model=openai_models.VideoList,
    responses=refusals(openai.NAME, "invalid", "not_found"),
    openapi_extra=query(openai_models.ListQuery),
)
def list_videos(request: Request, service: Service, base_url: BaseUrl) -> ReplyResponse:
    """List the videos on this server."""
    jobs, more = service.list_jobs(openai_library.list_from_wire(request.query_params))
    views = [service.view(job, base_url, "path") for job in jobs]
    return ReplyResponse(openai_library.list_to_wire(views, base_url, more))


@router.get(openai.RESULT_PATH, response_model=openai_models.Video, responses=refusals(openai.NAME, "not_found"))
def result(job_id: str, service: Service, base_url: BaseUrl) -> ReplyResponse:
    """The state of a video."""
    return _state(service.view(service.get(job_id), base_url, "path"), base_url)


@router.delete(
    openai.RESULT_PATH, response_model=openai_models.VideoDeleted, responses=refusals(openai.NAME, "not_found")
)
def delete(job_id: str, service: Service) -> ReplyResponse:
    """Cancel an unfinished video and keep its record, or delete a finished one."""
    service.cancel_or_delete(job_id)
    return ReplyResponse(openai_library.deleted_to_wire(job_id))


@router.head(openai.CONTENT_PATH, **_CONTENT)
@router.get(openai.CONTENT_PATH, **_CONTENT)
def content(job_id: str, request: Request, service: Service) -> Response:
    """The file of a finished video, or its first frame."""
    variant = openai_library.variant_from_wire(request.query_params)
    path = service.file(service.get(job_id))
    return VideoResponse(path) if variant == "video" else thumbnail_response(path, request.scope)


@router.get(openai_library.MODELS_PATH, response_model=openai_models.ModelList, responses=refusals(openai.NAME))
async def list_models(service: Service) -> ReplyResponse:
    """The server's model; a submission may name it, any other model, or none."""
    return ReplyResponse(openai_library.models_to_wire(service.config.model.name))


@router.get(openai_library.MODEL_PATH, response_model=openai_models.Model, responses=refusals(openai.NAME, "not_found"))
async def model(model_id: str, service: Service) -> ReplyResponse:
    """One model by its id."""
    return ReplyResponse(openai_library.model_to_wire(model_id, service.config.model.name))


def _state(view: JobView, base_url: str) -> ReplyResponse:
    """The state of a video, with the recommended polling interval."""
    pause_ms = round(1000 * pause_s(view, datetime.now(UTC)))
    return ReplyResponse(openai.job_to_wire(view, base_url), headers={openai.POLL_AFTER_HEADER: str(pause_ms)})
