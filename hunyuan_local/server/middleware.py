"""ASGI middleware for every call: path normalisation, HEAD for GET, body limits, unexpected errors.

Plain ASGI without buffering, so files stream through unchanged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..wires.base import Fault
from .error_answers import SEE_LOG, BodyTooLargeError, refusal

logger = logging.getLogger(__name__)


class CatchAll:
    """Answers 500 to unexpected errors; the details go to the log, not to the client."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except ClientDisconnect:
            return  # the client has gone
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            if started:
                raise  # closes the connection, so the client notices that the response is incomplete
            fault = Fault("internal", f"an unexpected error; {SEE_LOG}", nothing_made=False)
            await refusal(scope["path"], fault)(scope, receive, send)


class LeadingSlashes:
    """Treats ``//v3/...`` as ``/v3/...``: one client does not strip the trailing slash of its base URL."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("//"):
            raw = scope.get("raw_path") or b""
            scope = {**scope, "path": "/" + scope["path"].lstrip("/"), "raw_path": b"/" + raw.lstrip(b"/")}
        await self._app(scope, receive, send)


class HeadOfGet:
    """Answers HEAD for every GET route, by calling it with GET and dropping the body."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        def is_there(called: Scope) -> bool:
            return any(route.matches(called)[0] == Match.FULL for route in scope["app"].routes)

        async def send_head(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        if not is_there(scope) and is_there({**scope, "method": "GET"}):
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send_head)


class BodyLimit:
    """Refuses bodies that are too large, by Content-Length if given, otherwise while reading.

    Args:
        limit: limit in bytes.
        larger: other limits by the start of the path.
        reason: returns why a path has no larger limit, to add to the refusal; empty if there is nothing to add.
    """

    def __init__(
        self,
        app: ASGIApp,
        limit: int,
        larger: Mapping[str, int] | None = None,
        reason: Callable[[str], str] = lambda path: "",
    ):
        self._app, self._limit, self._larger, self._reason = app, limit, larger or {}, reason

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = next((size for start, size in self._larger.items() if scope["path"].startswith(start)), self._limit)
        announced = dict(scope["headers"]).get(b"content-length", b"")
        if announced.isdigit() and int(announced[:20]) > limit:
            fault = Fault("too_large", str(BodyTooLargeError(limit, self._reason(scope["path"]))))
            await refusal(scope["path"], fault)(scope, receive, send)
            return
        received = 0

        async def measured() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                # Raised while the route reads, so it is handled as the route's error.
                raise BodyTooLargeError(limit, self._reason(scope["path"]))
            return message

        await self._app(scope, measured, send)
