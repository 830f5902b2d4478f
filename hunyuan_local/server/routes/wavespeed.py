"""WaveSpeed's routes; :mod:`hunyuan_local.wires` defines the bodies."""

from __future__ import annotations

import secrets
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from ...wires import schemas, wavespeed, wavespeed_account, wavespeed_image, wavespeed_models
from ...wires.sent_image import SentImage
from ..bodies import JsonBody
from ..documentation import json_body, query, refusals
from ..error_answers import ReplyResponse, UnknownJobError
from ..image_model import check_takes_image, model_for_images
from . import BaseUrl, Service, SubmissionReader, take

router = APIRouter(tags=["WaveSpeed"])


# What the routes for text and for images document.
_SUBMISSION: dict[str, Any] = {
    "response_model": wavespeed_models.PredictionReply,
    "responses": refusals(wavespeed.NAME, "invalid", "not_found", "too_large", "rate_limited"),
    "openapi_extra": query(wavespeed_models.SubmissionQuery),
}


@router.post(wavespeed.SUBMIT_PATH, **_SUBMISSION)
async def submit(request: Request, body: JsonBody, service: Service, base_url: BaseUrl) -> ReplyResponse:
    """Generate a video."""
    return await _submit(wavespeed, request, body, service, base_url)


@router.post(wavespeed.IMAGE_SUBMIT_PATH, **_SUBMISSION)
async def submit_image(request: Request, body: JsonBody, service: Service, base_url: BaseUrl) -> ReplyResponse:
    """Generate a video that begins with an image."""
    return await _submit(wavespeed_image, request, body, service, base_url)


@router.post(
    wavespeed_image.UPLOAD_PATH,
    response_model=wavespeed_models.UploadReply,
    responses=refusals(wavespeed.NAME, "invalid", "too_large"),
    openapi_extra=json_body(wavespeed_models.UploadBody),
)
def announce_upload(body: JsonBody, service: Service, base_url: BaseUrl) -> ReplyResponse:
    """Announce an upload of an image; the answer has the address for the file, which expires after an hour."""
    announced = wavespeed_image.upload_from_wire(body)
    check_takes_image(service.config, SentImage("filename", announced.filename))
    service.check_disk()
    return ReplyResponse(wavespeed_image.upload_to_wire(service.images.upload_url(base_url, secrets.token_hex(16))))


async def _submit(
    dialect: SubmissionReader, request: Request, body: object, service: Service, base_url: BaseUrl
) -> ReplyResponse:
    submission, view = await take(dialect, request, body, service, base_url, "inline")
    if not submission.wait:
        return ReplyResponse(wavespeed.submission_to_wire(view, base_url))
    stopping, timeout_s = request.app.state.stopping, service.config.sync_timeout_s
    job = await service.wait(view.job_id, timeout_s, stopping, request.is_disconnected)
    view = await run_in_threadpool(service.view, job, base_url, "inline")
    answer = wavespeed.job_to_wire if job.is_finished else wavespeed.unfinished_to_wire
    return ReplyResponse(answer(view, base_url))


@router.get(
    wavespeed.SHORT_RESULT_PATH,
    response_model=wavespeed_models.PredictionReply,
    responses=refusals(wavespeed.NAME, "not_found"),
)
@router.get(
    wavespeed.RESULT_PATH,
    response_model=wavespeed_models.PredictionReply,
    responses=refusals(wavespeed.NAME, "not_found"),
)
def result(job_id: str, service: Service, base_url: BaseUrl) -> ReplyResponse:
    """The state of a video."""
    view = service.view(service.get(job_id), base_url, "inline")
    return ReplyResponse(wavespeed.job_to_wire(view, base_url))


@router.post(
    wavespeed_account.LIST_PATH,
    response_model=wavespeed_models.PredictionListReply,
    responses=refusals(wavespeed.NAME, "invalid", "too_large"),
    openapi_extra=json_body(wavespeed_models.ListBody),
)
def list_predictions(body: JsonBody, service: Service, base_url: BaseUrl) -> ReplyResponse:
    """List the videos on this server, newest first. A list contains URLs even for jobs submitted with base64 output."""
    listing = wavespeed_account.list_from_wire(body)
    views = [service.view(job, base_url) for job in service.list_jobs(listing)[0]]
    return ReplyResponse(wavespeed_account.list_to_wire(views, base_url, wavespeed_account.page_of(listing)))


@router.post(
    wavespeed.DELETE_PATH,
    response_model=wavespeed_models.PredictionsDeletedReply,
    responses=refusals(wavespeed.NAME, "invalid", "too_large"),
    openapi_extra=json_body(wavespeed_models.DeleteBody),
)
def delete(body: JsonBody, service: Service) -> ReplyResponse:
    """Cancel unfinished videos, and delete finished ones; the count does not include unknown ids."""
    count = 0
    for job_id in wavespeed_account.delete_from_wire(body):
        try:
            service.cancel_or_delete(job_id)
            count += 1
        except UnknownJobError:
            continue
    return ReplyResponse(wavespeed_account.deleted_to_wire(count))


@router.get(
    wavespeed_account.BALANCE_PATH, response_model=wavespeed_models.BalanceReply, responses=refusals(wavespeed.NAME)
)
async def balance() -> ReplyResponse:
    """Always the same amount, since videos cost nothing on this server."""
    return ReplyResponse(wavespeed_account.balance_to_wire())


@router.get(
    wavespeed_account.MODELS_PATH, response_model=wavespeed_models.ModelListReply, responses=refusals(wavespeed.NAME)
)
def list_models(service: Service) -> ReplyResponse:
    """The models that this server has, and the fields of their submissions."""
    config = service.config
    limits = (config.relaxed, config.max_prompt_characters)
    of_text = None if config.model.takes_image else schemas.submission_schema(wavespeed.NAME, *limits)
    of_image = None if model_for_images(config) is None else schemas.image_schema(*limits)
    return ReplyResponse(wavespeed_account.models_to_wire(of_text, of_image))


@router.get(
    wavespeed_account.SECRET_PATH,
    response_model=wavespeed_models.WebhookSecretReply,
    responses=refusals(wavespeed.NAME),
)
async def webhook_secret(service: Service) -> ReplyResponse:
    """The secret with which the server signs webhooks."""
    return ReplyResponse(wavespeed_account.secret_to_wire(service.webhook_secret))
