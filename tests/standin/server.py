"""The stand-in's HTTP server: routes, the life of a task, faults, and a record of all requests.

A real uvicorn in a thread on 127.0.0.1. services.py defines what the services accept and answer.
"""

from __future__ import annotations

import asyncio
import functools
import json
import secrets
import time
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import uvicorn
from server_thread import ServerThread
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from .faults import BUSY_PAGE, FAULTS, GATEWAY_PAGE, Broken
from .services import Novita, Service, Task, WaveSpeed

SLOW_S = 1.5


@dataclass(frozen=True)
class Submission:
    """A POST that created a task; `service` is wavespeed or novita, header names are lower-case."""

    service: str
    task_id: str
    body: dict[str, Any]
    headers: dict[str, str]


class StandIn:
    """Both services on one port, during the `with` block.

    The first poll of a task reports it as queued and later ones as running, until `polls_until_done` polls were made
    and `task_s` seconds have passed since its submission; the next poll reports the end. With fewer than two polls,
    the queued state is skipped. A poll with an injected fault does not advance a task, except the fault poll-slow,
    which only delays the response. A fault replaces only a response that would otherwise be successful.
    """

    def __init__(
        self, video: bytes, *, key: str = "test-key-0123456789", polls_until_done: int = 2, task_s: float = 0.0
    ) -> None:
        self.url = ""
        self.key = key
        self.submissions: list[Submission] = []
        self.polls: list[float] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.deleted: list[str] = []
        self.uploads: dict[str, bytes] = {}
        self.upload_status = 200  # of the storage; an error stores nothing
        self._video = video
        self._polls_until_done = polls_until_done
        self._task_s = task_s
        self._faults: dict[str, deque[str]] = {kind: deque() for kind in ("submit", "poll", "task", "file")}
        self._tasks: dict[str, Task] = {}
        self._wavespeed = WaveSpeed()
        self._image_to_video = WaveSpeed("i2v")
        self._novita = Novita()
        self._router = Router(self._routes(), redirect_slashes=False, default=self._unknown_path)

    def inject(self, fault: str, times: int = 1) -> None:
        """Inject this fault in the next `times` matching responses; faults of one kind queue up in order."""
        if fault not in FAULTS:
            raise ValueError(f"unknown fault {fault!r}; known are {', '.join(sorted(FAULTS))}")
        if times < 1:
            raise ValueError(f"times={times}: must be 1 or more")
        self._faults[fault.partition("-")[0]].extend([fault] * times)

    def finish_tasks(self) -> None:
        """Let tasks finish before `task_s` has passed."""
        self._task_s = 0.0

    def __enter__(self) -> StandIn:
        config = uvicorn.Config(
            self._receive,
            interface="asgi3",
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_graceful_shutdown=2,
        )
        self._server = ServerThread(config)
        self.url = self._server.url
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    def _routes(self) -> list[Route]:
        submit_wavespeed = functools.partial(self._submit, self._wavespeed)
        submit_images = functools.partial(self._submit, self._image_to_video)
        submit_novita = functools.partial(self._submit, self._novita)
        return [
            Route("/api/v3/predictions/delete", self._delete, methods=["POST"]),
            Route("/api/v3/predictions/{task_id}/result", self._wavespeed_result, methods=["GET"]),
            Route("/api/v3/predictions/{task_id}", self._wavespeed_result, methods=["GET"]),
            Route("/api/v3/wavespeed-ai/hunyuan-video/t2v", submit_wavespeed, methods=["POST"]),
            Route("/api/v3/wavespeed-ai/hunyuan-video/i2v", submit_images, methods=["POST"]),
            Route("/api/v3/media/uploads", self._announce, methods=["POST"]),
            Route("/storage/{name}", self._store, methods=["PUT"]),
            Route("/v3/async/hunyuan-video-fast", submit_novita, methods=["POST"]),
            Route("/v3/async/task-result", self._novita_result, methods=["GET"]),
            Route("/files/{name}", self._file, methods=["GET"]),
        ]

    async def _receive(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["raw_path"].decode("latin-1")
        if scope["query_string"]:
            path += "?" + scope["query_string"].decode("latin-1")
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        self.requests.append((scope["method"], path, headers))
        await self._router(scope, receive, send)

    async def _unknown_path(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        service: Service = self._wavespeed if path.startswith("/api/") else self._novita
        await service.refuse("unknown-path", f"there is nothing at {path}")(scope, receive, send)

    def _next_fault(self, kind: str) -> str | None:
        waiting = self._faults[kind]
        return waiting.popleft() if waiting else None

    async def _submit(self, service: Service, request: Request) -> Response:
        refusal = service.key_problem(request.headers.get("authorization"), self.key)
        if refusal is not None:
            return refusal
        body = _json(await request.body())
        problem = service.body_problem(body, request.headers.get("content-type", ""))
        if problem is not None:
            return service.refuse("body", problem)
        fault = self._next_fault("submit")
        match fault:
            case "submit-429":
                return service.refuse("rate", "Too many requests.", {"Retry-After": "3"})
            case "submit-500":
                return service.refuse("submit-failure", "The task could not be created.")
            case "submit-html-502":
                return HTMLResponse(GATEWAY_PAGE, 502)
            case "submit-401":
                return service.refuse("key-401", "The API key has been revoked.")
        task = self._make_task(service, body, dict(request.headers))
        match fault:
            case "submit-drop":
                return Broken(self._server.server)
            case "submit-malformed":
                return Response(b'{"code": 200, "data": {"id": ', media_type="application/json")
        return JSONResponse(service.accepted(task, self.url))

    def _make_task(self, service: Service, body: dict[str, Any], headers: dict[str, str]) -> Task:
        wanted = body.get("seed", -1)
        seed = secrets.randbelow(service.largest_seed + 1) if wanted == -1 else wanted
        video_url = f"{self.url}/files/{secrets.token_urlsafe(24)}.mp4"
        task = Task(service.name, service.new_id(), seed, video_url)
        self._tasks[task.task_id] = task
        self.submissions.append(Submission(service.name, task.task_id, body, headers))
        return task

    async def _wavespeed_result(self, request: Request) -> Response:
        return await self._result(self._wavespeed, request.path_params["task_id"], request)

    async def _novita_result(self, request: Request) -> Response:
        return await self._result(self._novita, request.query_params.get("task_id", ""), request)

    async def _result(self, service: Service, task_id: str, request: Request) -> Response:
        self.polls.append(time.monotonic())
        refusal = service.key_problem(request.headers.get("authorization"), self.key)
        if refusal is not None:
            return refusal
        task = self._tasks.get(task_id)
        if task is None or task.service != service.name:
            return service.refuse("unknown-task", f"there is no task {task_id!r}")
        match self._next_fault("poll"):
            case "poll-429":
                return service.refuse("rate", "Too many requests.", {"Retry-After": "1"})
            case "poll-500":
                return service.refuse("read-failure", "The task could not be read.")
            case "poll-404":
                return service.refuse("unknown-task", f"there is no task {task_id!r}")
            case "poll-drop":
                return Broken(self._server.server)
            case "poll-html":
                return HTMLResponse(BUSY_PAGE)
            case "poll-malformed":
                whole = json.dumps(service.result(task, task.phase, self.url)).encode()
                return Response(whole[: len(whole) // 2], media_type="application/json")
            case "poll-unknown-status":
                return JSONResponse(service.result(task, "undocumented", self.url))
            case "poll-slow":
                await asyncio.sleep(SLOW_S)
        self._advance(task)
        return JSONResponse(service.result(task, task.phase, self.url))

    def _advance(self, task: Task) -> None:
        task.polls += 1
        now = time.monotonic()
        if task.ended_at is not None:
            return
        if task.polls > self._polls_until_done and now >= task.made_at + self._task_s:
            task.phase = "failed" if self._next_fault("task") else "succeeded"
            task.ended_at = now
        elif task.polls > 1 or self._polls_until_done < 2:
            task.phase = "running"

    async def _delete(self, request: Request) -> Response:
        refusal = self._wavespeed.key_problem(request.headers.get("authorization"), self.key)
        if refusal is not None:
            return refusal
        body = _json(await request.body())
        ids = body.get("ids") if isinstance(body, dict) else None
        if not isinstance(ids, list) or not ids or not all(isinstance(task_id, str) for task_id in ids):
            return self._wavespeed.refuse("body", "ids must be a list of task ids")
        self.deleted.extend(ids)
        known = {task_id for task_id in ids if task_id in self._tasks and self._tasks[task_id].service == "wavespeed"}
        for task_id in known:
            del self._tasks[task_id]
        return JSONResponse({"code": 200, "message": "success", "data": {"deleted_count": len(known)}})

    async def _announce(self, request: Request) -> Response:
        refusal = self._wavespeed.key_problem(request.headers.get("authorization"), self.key)
        if refusal is not None:
            return refusal
        body = _json(await request.body())
        if not isinstance(body, dict) or not body.get("filename") or not isinstance(body.get("size"), int):
            return self._wavespeed.refuse("body", "filename and size are required")
        return JSONResponse(self._wavespeed.ticket(f"{self.url}/storage/{secrets.token_urlsafe(24)}"))

    async def _store(self, request: Request) -> Response:
        if self.upload_status != 200:
            return PlainTextResponse("not now", self.upload_status, {"Retry-After": "7"})
        if request.headers.get("x-upload") != "yes" or "authorization" in request.headers:
            return PlainTextResponse("the signature does not match", 403)
        self.uploads[f"{self.url}{request.url.path}?download"] = await request.body()
        return Response(status_code=200)

    async def _file(self, request: Request) -> Response:
        wanted = f"{self.url}{request.url.path}"
        if not any(task.video_url == wanted and task.phase == "succeeded" for task in self._tasks.values()):
            return PlainTextResponse("no such file", 404)
        match self._next_fault("file"):
            case "file-403":
                return PlainTextResponse("the link has expired", 403)
            case "file-404":
                return PlainTextResponse("no such file", 404)
            case "file-500":
                return PlainTextResponse("storage error", 500)
            case "file-html":
                return HTMLResponse(BUSY_PAGE)
            case "file-truncated":
                return Broken(self._server.server, self._video)
            case "file-cut":
                return Response(self._video[: len(self._video) // 2], media_type="video/mp4")
        return Response(self._video, media_type="video/mp4")


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None
