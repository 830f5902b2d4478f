"""Error responses, in the dialect that a path belongs to.

Outside the dialects' prefixes, the response is ``{"error": text}``. All error responses are created here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from ..capabilities import Capabilities
from ..errors import FieldProblem, HunyuanLocalError, InvalidRequestError, QueueFullError, StoreError
from ..wires import novita, openai, wavespeed
from ..wires.base import HTTP_STATUSES, Fault, FaultKind, Reply
from ..wires.openai_library import UnknownModelError
from .conditional import is_known, not_modified, strong_etag

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

logger = logging.getLogger(__name__)


class Dialect(Protocol):
    """The attributes of a dialect module in :mod:`hunyuan_local.wires` that the server uses."""

    NAME: str
    MODEL: str
    SUBMIT_PATH: str
    CAPABILITIES: Capabilities

    def fault_to_wire(self, fault: Fault) -> tuple[int, Reply]: ...


PREFIXES: dict[str, Dialect] = {"/api/v3/": wavespeed, "/v3/": novita, "/v1/": openai}
DIALECTS: dict[str, Dialect] = {dialect.NAME: dialect for dialect in PREFIXES.values()}


class PlainFault(Reply):
    """An error response outside the dialects."""

    error: str


class ReplyResponse(JSONResponse):
    """A reply as JSON. For GET, it has an entity tag and becomes a 304 if the client has a current copy."""

    def render(self, content: Any) -> bytes:
        return super().render(content.to_json())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "GET" and self.status_code == 200:
            self.headers["etag"] = strong_etag(self.body)
            self.headers["cache-control"] = "private, no-cache"  # clients must revalidate, since a job's state changes
            if is_known(scope, self.headers):
                await not_modified(self.headers)(scope, receive, send)
                return
        await super().__call__(scope, receive, send)


SEE_LOG = "see the server's log"


class UnknownJobError(HunyuanLocalError):
    """The job does not exist, or was deleted."""

    def __init__(self, job_id: str):
        super().__init__(f"there is no job {job_id[:80]!r}; it never existed, or was deleted")


class VideoNotReadyError(HunyuanLocalError):
    """The job has no video yet, or will never have one."""


class LinkRefusedError(HunyuanLocalError):
    """A signed URL is invalid or has expired."""


class UploadRefusedError(HunyuanLocalError):
    """An uploaded file is not an image that can be used."""


class BodyTooLargeError(HunyuanLocalError):
    """The body exceeds the server's limit; ``reason`` explains the limit if that is needed."""

    def __init__(self, limit: int, reason: str = ""):
        super().__init__(f"the body is larger than the limit of {limit} bytes{f'; {reason}' if reason else ''}")


class DiskFullError(HunyuanLocalError):
    """The disk has too little free space to accept a job."""


class NoPlaceError(QueueFullError):
    """The queue is full; ``retry_after_s`` estimates when a place will be free, in whole seconds, at least 1."""

    def __init__(self, message: str, seconds: float):
        self.retry_after_s = max(1, math.ceil(seconds))
        super().__init__(message)


_KINDS: tuple[tuple[type[HunyuanLocalError], FaultKind], ...] = (
    (UnknownModelError, "not_found"),
    (InvalidRequestError, "invalid"),
    (UnknownJobError, "not_found"),
    (VideoNotReadyError, "not_found"),  # as OpenAI answers
    (LinkRefusedError, "forbidden"),
    (UploadRefusedError, "invalid"),
    (BodyTooLargeError, "too_large"),
    (QueueFullError, "rate_limited"),
    (DiskFullError, "unavailable"),
    (StoreError, "unavailable"),
)


def dialect_of(path: str) -> Dialect | None:
    """The dialect that a path belongs to, by its prefix."""
    return next((dialect for prefix, dialect in PREFIXES.items() if f"{path}/".startswith(prefix)), None)


def fault_reply(dialect: Dialect | None, fault: Fault) -> tuple[int, Reply]:
    """HTTP status and body for a fault."""
    if dialect is None:
        return HTTP_STATUSES[fault.kind], PlainFault(error=fault.message)
    return dialect.fault_to_wire(fault)


def refusal(path: str, fault: Fault, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The error response to a call."""
    # The message may quote characters from the call that cannot be encoded.
    fault = replace(fault, message=fault.message.encode(errors="backslashreplace").decode())
    dialect = dialect_of(path)
    status, body = fault_reply(dialect, fault)
    headers = dict(headers or {})
    if dialect is openai:
        headers |= openai.fault_headers(fault)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return ReplyResponse(body, status, headers)


def install(app: FastAPI) -> None:
    """Register handlers for all expected errors; :class:`CatchAll` handles the others."""
    app.exception_handler(HunyuanLocalError)(_on_our_error)
    app.exception_handler(HTTPException)(_on_http_error)
    app.exception_handler(RequestValidationError)(_on_framework_validation)


async def _on_our_error(request: Request, error: HunyuanLocalError) -> JSONResponse:
    path = request.scope["path"]  # request.url may fail on invalid bytes
    kind: FaultKind = next((kind for cls, kind in _KINDS if isinstance(error, cls)), "internal")
    text = str(error)
    if kind == "internal" or isinstance(error, StoreError):
        # The message is for the server's operator, and may contain local paths.
        logger.error("%s %s: %s", request.method, path, error)
        text = f"{'the job store cannot be used' if kind == 'unavailable' else 'the call failed'}; {SEE_LOG}"
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, NoPlaceError) else {}
    field = error.problems[0].field if isinstance(error, InvalidRequestError) else None
    nothing_made = not isinstance(error, StoreError)  # the job may have been stored before the error
    return refusal(path, Fault(kind, text, field, nothing_made), headers)


async def _on_http_error(request: Request, error: HTTPException) -> JSONResponse:
    """Handle errors raised by the framework: unknown route, wrong method, unreadable form."""
    path = request.scope["path"]
    match error.status_code:
        case 404:
            return refusal(path, Fault("not_found", _no_route_message(request.method, path)))
        case 405:
            allowed = ", ".join(sorted(_methods_at(request)))
            message = f"{request.method} is not allowed at {path[:200]!r}; allowed: {allowed}"
            return refusal(path, Fault("method_not_allowed", message), {"Allow": allowed})
    kind: FaultKind = "invalid" if error.status_code < 500 else "internal"
    return refusal(path, Fault(kind, str(error.detail)), error.headers)


async def _on_framework_validation(request: Request, error: RequestValidationError) -> JSONResponse:
    """Handle FastAPI's own validation errors; routes validate their input themselves, so these are not expected."""
    problems = [FieldProblem(str(item["loc"][-1]), item["input"], item["msg"].lower()) for item in error.errors()[:10]]
    return await _on_our_error(request, InvalidRequestError(problems))


def _no_route_message(method: str, path: str) -> str:
    dialect = dialect_of(path)
    if dialect is None:
        return f"nothing found at {path[:200]!r}; see /docs for all routes"
    return (
        f"nothing found at {method} {path[:200]!r}; this server's model is {dialect.MODEL}, "
        f"at POST {dialect.SUBMIT_PATH}; see /docs for all routes"
    )


def _methods_at(request: Request) -> set[str]:
    documented = request.app.openapi()["paths"].get(request.url.path)
    if documented is not None:  # route matching would also find other routes, with {job_id} in this place
        return _with_head({name.upper() for name in documented} & set(_METHODS))

    def is_there(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] == Match.FULL for route in request.app.router.routes)

    return _with_head({method for method in _METHODS if is_there(method)})


def _with_head(methods: set[str]) -> set[str]:
    """Add HEAD if there is GET; see :class:`hunyuan_local.server.middleware.HeadOfGet`."""
    return methods | ({"HEAD"} if "GET" in methods else set())
