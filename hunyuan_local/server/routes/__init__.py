"""The routes, one module per dialect, and their common dependencies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Protocol

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from ...schema import JobView
from ...wires.base import Submission
from ..image_model import check_takes_image
from ..service import Delivery, VideoService


class SubmissionReader(Protocol):
    """A module that reads the submissions of a dialect."""

    NAME: str

    def request_from_wire(
        self, body: object, query: Mapping[str, str] | None = None, *, relaxed: bool = False
    ) -> Submission: ...


async def _service(request: Request) -> VideoService:
    service: VideoService = request.app.state.service
    return service


async def _base_url(request: Request) -> str:
    """The base URL of this server as the caller sees it, without a trailing slash."""
    return request.app.state.service.config.public_url or str(request.base_url).rstrip("/")


Service = Annotated[VideoService, Depends(_service)]
BaseUrl = Annotated[str, Depends(_base_url)]


async def take(
    dialect: SubmissionReader, request: Request, body: Any, service: VideoService, base_url: str, deliver: Delivery
) -> tuple[Submission, JobView]:
    """Read a submission and enqueue its job; returns the submission and the job's state.

    Raises:
        HunyuanLocalError: the submission is refused; see :meth:`VideoService.submit`.
    """
    submission = dialect.request_from_wire(body, request.query_params, relaxed=service.config.relaxed)
    if submission.image is not None:
        await run_in_threadpool(check_takes_image, service.config, submission.image)
        submission = await service.images.with_image(submission)
    job = await run_in_threadpool(service.submit, dialect.NAME, submission, base_url)
    return submission, await run_in_threadpool(service.view, job, base_url, deliver)
