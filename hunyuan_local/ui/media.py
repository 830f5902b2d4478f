"""Routes for the page's media: videos, posters, previews of unfinished videos, and input images; and a check that the
server runs.

The page's door protects these paths, so their URLs need no signature and do not expire while the page is open.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from functools import lru_cache
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from ..errors import FieldProblem, InvalidRequestError
from ..server.auth import PAGE_UPLOAD_PATH
from ..server.error_answers import refusal
from ..server.video_response import VideoResponse
from ..video.poster import read_poster
from ..wires.base import Fault
from .access import PREFIX
from .actions import Studio
from .form import sentences

_READ = ["GET", "HEAD"]
_MOST_POSTERS = 512  # about 10 kB each
# An upload is in memory as a whole, and checking it decodes it.
_MOST_UPLOADS = 4
_UPLOAD_S = 300
# The files of a finished job never change, and an image has its digest in its address.
_KEPT = {"cache-control": "private, max-age=86400, immutable"}


def add_routes(app: FastAPI, studio: Studio) -> None:
    """Serve the media of a studio's jobs; the app's handlers turn errors into responses."""
    started = secrets.token_hex(8)
    turn = threading.Lock()
    service = studio.service

    @lru_cache(_MOST_POSTERS)
    def poster_of(path: Path) -> bytes:
        return read_poster(path)

    @app.api_route(f"{PREFIX}/alive", methods=_READ)
    async def alive() -> JSONResponse:
        """``started`` changes when the server restarts, which tells the page to reload."""
        return JSONResponse({"started": started}, headers={"cache-control": "no-store"})

    places = asyncio.Semaphore(_MOST_UPLOADS)

    async def upload(request: Request) -> Response:
        """Check and keep the image in the body; the response is its description."""
        async with places:
            try:
                async with asyncio.timeout(_UPLOAD_S):
                    data = await request.body()
                image = await run_in_threadpool(studio.images.keep, data)
            except TimeoutError:
                return _refused(f"the upload took longer than {_UPLOAD_S} s; try again, or give a smaller file")
            except ValueError as error:
                return _refused(str(error))
        return JSONResponse(image.described())

    if service.config.takes_images:
        app.post(PAGE_UPLOAD_PATH)(upload)

    @app.api_route(f"{PAGE_UPLOAD_PATH}/{{digest}}.jpg", methods=_READ)
    def input_image(digest: str) -> Response:
        try:
            small = studio.images.thumbnail(digest)
        except ValueError as error:
            return refusal(PAGE_UPLOAD_PATH, Fault("not_found", f"the image {digest[:80]!r} {error}"))
        return Response(small, media_type="image/jpeg", headers=_KEPT)

    @app.api_route(f"{PREFIX}/video/{{job_id}}.mp4", methods=_READ)
    def video(job_id: str) -> Response:
        return VideoResponse(service.file(service.get(job_id)))

    @app.api_route(f"{PREFIX}/poster/{{job_id}}.jpg", methods=_READ)
    def poster(job_id: str) -> Response:
        path = service.file(service.get(job_id))
        with turn:  # a browser requests many at once, and each runs two processes, which would slow the generation
            return Response(poster_of(path), media_type="image/jpeg", headers=_KEPT)

    @app.api_route(f"{PREFIX}/preview/{{job_id}}.png", methods=_READ)
    def preview(job_id: str) -> Response:
        return Response(studio.preview(job_id), media_type="image/png", headers={"cache-control": "no-store"})


def _refused(rule: str) -> Response:
    """The response to an upload that is not kept, as a sentence for the form."""
    text = sentences(InvalidRequestError([FieldProblem("image", None, rule)]))[0]
    return refusal(PAGE_UPLOAD_PATH, Fault("invalid", text, "image"))
