"""Routes for the page's media: videos, posters and previews of unfinished videos; and a check that the server runs.

The page's door protects these paths, so their URLs need no signature and do not expire while the page is open.
"""

from __future__ import annotations

import secrets
import threading
from functools import lru_cache
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from ..server.video_response import VideoResponse
from ..video.poster import read_poster
from .access import PREFIX
from .actions import Studio

_READ = ["GET", "HEAD"]
_MOST_POSTERS = 512  # about 10 kB each
# The files of a finished job never change.
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
